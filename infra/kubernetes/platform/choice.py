"""What platform a site asks for on the cluster that is there: the image, the share, and what the cluster can do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from configs.cluster import Cluster
from configs.problems import Problem, UserError
from configs.site import SITE_FILE, Site
from configs.storage import DirectoryStorage, MountStorage, SmbStorage
from infra.kubernetes.manifests import REGISTRY
from infra.kubernetes.objects import find
from infra.kubernetes.platform.share import CSI_DRIVER
from infra.kubernetes.platform.wanted import Wanted

if TYPE_CHECKING:
    from lightkube import Client

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def cluster_of(site: Site) -> Cluster:
    """Return the site's cluster.

    Raises:
        UserError: it names none.
    """
    if site.cluster is None:
        remedy = "add it (an empty one will do: `cluster: {}`); all its keys may be left out"
        raise UserError(Problem(SITE_FILE, "has no section `cluster`", remedy))
    return site.cluster


def choose(site: Site, client: Client, home: Path, image: str | None = None) -> Wanted:
    """Return the platform of ``site``; ``image`` is used instead of the one that the site or the last build names.

    Raises:
        UserError: there is no image, or the cluster lacks what the site names: all of it.
    """
    from lightkube.resources.storage_v1 import CSIDriver

    cluster = cluster_of(site)
    commit = None
    if image is None and cluster.images.run is None:
        from infra.image.record import current_image

        record = current_image(home)
        image, commit = record.reference, record.commit
    problems = missing(cluster, client)
    if problems:
        raise UserError(problems)
    return Wanted(
        cluster=cluster,
        image=image or str(cluster.images.run),
        commit=commit,
        share=_share(site, cluster),
        csi_smb=find(client, CSIDriver, CSI_DRIVER) is not None,
        pull_secrets=(REGISTRY,) if site.registry is not None and site.registry.user is not None else (),
    )


def _share(site: Site, cluster: Cluster) -> DirectoryStorage | MountStorage | SmbStorage | None:
    # Where the site's own workers mount it, pods have it as a folder, which trainings over several of them need.
    share = cluster.share or site.mounted_share or site.storage
    # A folder of the checkout is on the user's machine alone: pods have no share then.
    return None if isinstance(share, DirectoryStorage) and not share.path.is_absolute() else share


def missing(cluster: Cluster, client: Client) -> list[Problem]:
    """Return what the site names for the platform's data, and the cluster has not."""
    from lightkube.resources.core_v1 import Node

    where, state = f"{SITE_FILE} cluster.state", cluster.state
    problems = []
    if state.node is not None and find(client, Node, state.node) is None:
        problems.append(Problem(f"{where}.node", f"the cluster has no node {state.node}", f"one of {_nodes(client)}"))
    if state.host_path is None:
        classes = _classes(client)
        known = ", ".join(classes) or "none"
        if state.storage_class is not None and state.storage_class not in classes:
            problems.append(Problem(f"{where}.storage_class", f"the cluster has no {state.storage_class}", known))
        if state.storage_class is None and True not in classes.values():
            remedy = f"name `storage_class` (there are: {known}), or a folder of a node by `host_path` and `node`"
            problems.append(Problem(where, "the cluster has no default storage class", remedy))
    return problems


def _classes(client: Client) -> dict[str, bool]:
    """Return the storage classes, and whether each is the default."""
    from lightkube.resources.storage_v1 import StorageClass

    found = {}
    for item in client.list(StorageClass):
        metadata = item.metadata
        if metadata is not None and metadata.name is not None:
            found[metadata.name] = (metadata.annotations or {}).get(DEFAULT_CLASS) == "true"
    return found


def _nodes(client: Client) -> str:
    from lightkube.resources.core_v1 import Node

    return ", ".join(sorted(node.metadata.name or "" for node in client.list(Node) if node.metadata is not None))
