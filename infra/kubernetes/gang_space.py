"""What gangs are given on a cluster, found out by whoever starts one: a person's machine, or the pod of a flow run.

A machine asks the site and the cluster. A pod gives gangs what it has itself: its image, so that a run is of one
version of the code, and its way to the share.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from configs.cluster import Cluster
from configs.problems import Problem, UserError
from configs.quantity import parse_quantity
from configs.site import SITE_FILE, load_site
from configs.storage import STORAGE, DirectoryStorage, MountStorage, SmbStorage
from infra.kubernetes.client import SERVICE_ACCOUNT, connect
from infra.kubernetes.gang_pod import ROOT, Space
from infra.kubernetes.manifests import SHARE as SHARE_SECRET
from infra.kubernetes.platform.choice import choose, cluster_of
from infra.kubernetes.platform.share import PASSWORD, as_seen_by_pods, share_volumes
from infra.kubernetes.platform.wanted import Wanted
from infra.repository.share import ENVIRONMENT, open_share

if TYPE_CHECKING:
    from lightkube import Client

RESOLV_CONF = Path("/etc/resolv.conf")
_SHARE_VOLUMES = ("share", "share-sentinel")


def open_space(root: Path, home: Path) -> tuple[Client, Space, Path | None]:
    """Return the way to the cluster, what it gives gangs, and where this machine sees the folder ``space.kept``.

    Raises:
        UserError: the site names no cluster or none that can be used, or pods have no share.
    """
    site = load_site(root / SITE_FILE)
    cluster = cluster_of(site)
    client = connect(cluster)
    if (SERVICE_ACCOUNT / "token").exists() and os.environ.get(ENVIRONMENT):
        from lightkube.resources.core_v1 import Pod

        own = client.get(Pod, socket.gethostname()).to_dict()
        space = space_like(own, cluster, os.environ[ENVIRONMENT], _domain(RESOLV_CONF.read_text(encoding="utf-8")))
    else:
        space = space_for(choose(site, client, home))
    return client, space, _seen_here(root, home)


def space_for(wanted: Wanted) -> Space:
    """Return what the platform that is wanted gives gangs.

    Raises:
        UserError: pods have no share.
    """
    storage = as_seen_by_pods(wanted)
    if storage is None:
        remedy = f"name one that all nodes reach: `share:` in section cluster of {SITE_FILE}"
        raise UserError(Problem(SITE_FILE, "the share is a folder of this machine alone: workers have none", remedy))
    volumes, mounts = share_volumes(wanted.share, csi_smb=wanted.csi_smb)
    return _space(
        wanted.cluster,
        storage,
        image=wanted.image,
        pull_secrets=wanted.pull_secrets,
        share_volumes=tuple(volumes),
        share_mounts=tuple(mounts),
    )


def space_like(pod: Mapping[str, Any], cluster: Cluster, share: str, domain: str) -> Space:
    """Return what gangs are given by a flow run's pod; ``share`` is the storage as it sees it, as JSON."""
    spec = pod["spec"]
    container = spec["containers"][0]
    return _space(
        cluster,
        STORAGE.validate_json(share),
        image=container["image"],
        pull_secrets=tuple(item["name"] for item in spec.get("imagePullSecrets") or ()),
        share_volumes=tuple(item for item in spec.get("volumes") or () if item["name"] in _SHARE_VOLUMES),
        share_mounts=tuple(item for item in container.get("volumeMounts") or () if item["name"] in _SHARE_VOLUMES),
        domain=domain,
    )


def _space(
    cluster: Cluster,
    storage: DirectoryStorage | MountStorage | SmbStorage,
    *,
    pull_secrets: tuple[str, ...],
    **more: Any,
) -> Space:
    training = cluster.training
    tolerations = (item.model_dump(exclude_none=True) for item in training.tolerations)
    return Space(
        namespace=cluster.namespace,
        cache=cluster.cache,
        shm=int(parse_quantity(training.shm)),
        ttl_s=training.ttl_s,
        deadline_s=training.deadline_s,
        priority_class=training.priority_class,
        node_selector=training.node_selector,
        tolerations=tuple(tolerations),
        kept=_kept(storage),
        environment={ENVIRONMENT: storage.model_dump_json(exclude_none=True)},
        secrets={PASSWORD: (SHARE_SECRET, "password")} if isinstance(storage, SmbStorage) else {},
        pull_secrets=pull_secrets,
        **more,
    )


def _kept(storage: DirectoryStorage | MountStorage | SmbStorage) -> PurePosixPath:
    """Return the folder in a pod where what must outlive it is kept: DVC's in the share; smb: the pod's own disk."""
    if isinstance(storage, MountStorage):
        return PurePosixPath(storage.path) / storage.folder
    return ROOT / ".mlops" if isinstance(storage, SmbStorage) else PurePosixPath(storage.path)


def _seen_here(root: Path, home: Path) -> Path | None:
    share = open_share(root, home, credentials=False)
    return None if isinstance(share.storage, SmbStorage) or "url" not in share.settings else Path(share.settings["url"])


def _domain(resolv_conf: str) -> str:
    """Return the cluster's domain as a pod's resolver knows it."""
    for line in resolv_conf.splitlines():
        for name in line.split()[1:] if line.startswith("search") else ():
            if name.startswith("svc."):
                return name.removeprefix("svc.")
    return "cluster.local"
