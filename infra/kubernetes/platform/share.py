"""The share in pods: the nodes' own mount, or csi-driver-smb where the cluster has it; else runs use ``smb://``.

The sentinel file is a volume of its own, of the type `File`: where the share is not mounted, the node itself refuses to
start the pod, with a reason, and nothing is written into an empty mount point.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from configs.secret import PasswordReference
from configs.storage import DirectoryStorage, MountStorage, SmbStorage
from infra.kubernetes.manifests import IMAGE_USER, SHARE
from infra.kubernetes.platform.volumes import bound_volume
from infra.kubernetes.platform.wanted import Wanted
from infra.samba.sentinel import SENTINEL

MOUNTED_AT = "/share"
SENTINEL_AT = "/run/mlops/share-sentinel"
CSI_DRIVER = "smb.csi.k8s.io"
PASSWORD = "MLOPS_SHARE_PASSWORD"  # noqa: S105 the variable's name
SECRET_KEYS = ("user", "username", "domain", "password")
"""Keys of the Secret; csi-driver-smb reads the last three."""


def manifests(wanted: Wanted) -> list[dict[str, Any]]:
    """Return volume and claim of the share; none where pods do not mount it."""
    source = _source(wanted)
    if source is None:
        return []
    # A share has no size of its own that Kubernetes could give out; the amount only has to be the same in both.
    return bound_volume(wanted, SHARE, "share", "1Gi", "ReadWriteMany", source)


def as_seen_by_pods(wanted: Wanted) -> DirectoryStorage | MountStorage | SmbStorage | None:
    """Return the section ``storage`` that holds in a pod; None where pods have no share."""
    share = wanted.share
    if isinstance(share, MountStorage | DirectoryStorage):
        return share.model_copy(update={"path": Path(MOUNTED_AT)})
    if isinstance(share, SmbStorage) and wanted.csi_smb:
        return DirectoryStorage(path=Path(MOUNTED_AT) / share.place.folder)
    if isinstance(share, SmbStorage):
        return share.model_copy(update={"password": PasswordReference(environment=PASSWORD)})
    return None


def share_volumes(
    share: DirectoryStorage | MountStorage | SmbStorage | None, *, csi_smb: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return volumes and mounts of a pod that uses the share; both empty where it is not mounted."""
    if share is None or (isinstance(share, SmbStorage) and not csi_smb):
        return [], []
    volumes: list[dict[str, Any]] = [{"name": "share", "persistentVolumeClaim": {"claimName": SHARE}}]
    # A pod keeps the mount that it began with, whatever becomes of the node's. What is mounted over that later it sees:
    # so a new password of the share reaches it.
    mounts: list[dict[str, Any]] = [{"name": "share", "mountPath": MOUNTED_AT, "mountPropagation": "HostToContainer"}]
    if isinstance(share, MountStorage):
        sentinel = {"path": str(PurePosixPath(share.path) / SENTINEL), "type": "File"}
        volumes.append({"name": "share-sentinel", "hostPath": sentinel})
        mounts.append({"name": "share-sentinel", "mountPath": SENTINEL_AT, "readOnly": True})
    return volumes, mounts


def _source(wanted: Wanted) -> dict[str, Any] | None:
    share = wanted.share
    if isinstance(share, MountStorage | DirectoryStorage):
        return {"hostPath": {"path": str(share.path), "type": "Directory"}}
    if not (isinstance(share, SmbStorage) and wanted.csi_smb):
        return None
    place = share.place
    options = [
        "vers=3.1.1",
        f"uid={IMAGE_USER}",
        f"gid={IMAGE_USER}",
        "file_mode=0660",
        "dir_mode=0770",
        # Two writers are told apart by the server, not by a client's inode numbers.
        "noserverino",
        *(["seal"] if share.encrypt else []),
        *([f"port={place.port}"] if place.port != 445 else []),
    ]
    return {
        "mountOptions": options,
        "csi": {
            "driver": CSI_DRIVER,
            "volumeHandle": f"{place.host}/{place.share}#{wanted.namespace}",
            "volumeAttributes": {"source": f"//{place.host}/{place.share}"},
            "nodeStageSecretRef": {"name": SHARE, "namespace": wanted.namespace},
        },
    }
