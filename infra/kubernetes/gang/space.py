"""What gangs are given on a cluster, found out by whoever starts one: a person's machine, or the pod of a flow run.

A machine asks the site and the cluster. A pod gives gangs what it has itself: its image, so that a run is of one
version of the code, and its way to the share.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from configs.cluster import Cluster
from configs.problems import Problem, UserError
from configs.quantity import parse_quantity
from configs.site import SITE_FILE, load_site
from configs.storage import STORAGE, DirectoryStorage, MountStorage, SmbStorage, Storage
from infra.kubernetes.client import connect
from infra.kubernetes.gang.pod import Space
from infra.kubernetes.manifests import POD
from infra.kubernetes.platform.choice import choose, cluster_of
from infra.kubernetes.platform.share import CSI_DRIVER, as_seen_by_pods, share_volumes
from infra.kubernetes.platform.wanted import Wanted
from infra.repository.share import ENVIRONMENT, open_share

if TYPE_CHECKING:
    from lightkube import Client

RESOLV_CONF = Path("/etc/resolv.conf")
_SHARE_VOLUMES = ("share", "share-sentinel")


def open_space(root: Path, home: Path) -> tuple[Client, Space, Path | None]:
    """Return the way to the cluster, what it gives gangs, and where this machine sees the folder ``space.kept``.

    Raises:
        UserError: the site names no cluster or none that can be used, or pods do not mount the share.
    """
    site = load_site(root / SITE_FILE)
    cluster = cluster_of(site)
    client = connect(cluster)
    # A run's pod knows its name. Whether it has a share is not asked here: without one it may not look for another way.
    if name := os.environ.get(POD):
        from lightkube.resources.core_v1 import Pod

        own = client.get(Pod, name).to_dict()
        space = space_like(own, cluster, os.environ.get(ENVIRONMENT), _domain(RESOLV_CONF.read_text(encoding="utf-8")))
    else:
        space = space_for(choose(site, client, home))
    return client, space, _seen_here(root, home)


def space_for(wanted: Wanted) -> Space:
    """Return what the platform that is wanted gives gangs.

    Raises:
        UserError: pods do not mount the share.
    """
    volumes, mounts = share_volumes(wanted.share, csi_smb=wanted.csi_smb)
    return _space(
        wanted.cluster,
        as_seen_by_pods(wanted),
        image=wanted.image,
        pull_secrets=wanted.pull_secrets,
        share_volumes=tuple(volumes),
        share_mounts=tuple(mounts),
    )


def space_like(pod: Mapping[str, Any], cluster: Cluster, share: str | None, domain: str) -> Space:
    """Return what gangs are given by a flow run's pod; ``share`` is the storage as it sees it, as JSON.

    Raises:
        UserError: the pod does not mount the share.
    """
    spec = pod["spec"]
    container = spec["containers"][0]
    return _space(
        cluster,
        STORAGE.validate_json(share) if share else None,
        image=container["image"],
        pull_secrets=tuple(item["name"] for item in spec.get("imagePullSecrets") or ()),
        share_volumes=tuple(item for item in spec.get("volumes") or () if item["name"] in _SHARE_VOLUMES),
        share_mounts=tuple(item for item in container.get("volumeMounts") or () if item["name"] in _SHARE_VOLUMES),
        domain=domain,
    )


def _space(cluster: Cluster, storage: Storage | None, **more: Any) -> Space:
    if storage is None or isinstance(storage, SmbStorage):
        # All ranks read the same checkpoints and rank 0 writes them: that takes a folder, not a copy in each pod.
        remedy = f"let the nodes mount it (`share:` in section cluster of {SITE_FILE}), or install {CSI_DRIVER}"
        raise UserError(Problem(SITE_FILE, "workers need the share as a folder, and pods do not mount it", remedy))
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
        **more,
    )


def _kept(storage: DirectoryStorage | MountStorage) -> PurePosixPath:
    """Return the folder in a pod where what must outlive it is kept: DVC's in the share."""
    folder = storage.path / storage.folder if isinstance(storage, MountStorage) else storage.path
    return PurePosixPath(folder)


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
