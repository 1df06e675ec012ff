"""The site: what ``configs/site.yaml`` may say. Each section has a module of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from configs.cluster import Cluster
from configs.image import ImageBuild
from configs.kubernetes import Kubernetes, kubernetes_mistakes
from configs.loading import Mistake, Section, load_model
from configs.machines import Host, Hostname, Network, Vm, VmImage, machine_mistakes
from configs.packages import Packages, package_mistakes
from configs.registry import Registry
from configs.services import service_mistakes
from configs.storage import SHARE_ID, MountStorage, SmbStorage, Storage

SITE_FILE = "configs/site.yaml"


class Site(Section):
    """A whole site file."""

    storage: Storage
    cluster: Cluster | None = None
    registry: Registry | None = None
    image: ImageBuild = ImageBuild()
    network: Network | None = None
    packages: Packages | None = None
    kubernetes: Kubernetes | None = None
    vm_image: VmImage | None = None
    hosts: dict[Hostname, Host] = Field(default_factory=dict)
    vms: dict[Hostname, Vm] = Field(default_factory=dict)

    @property
    def mounted_share(self) -> MountStorage | None:
        """Return the share as the site itself mounts it on its workers; None where it does not."""
        share = self.storage
        roles = {role for host in self.hosts.values() for role in host.roles}
        roles |= {role for vm in self.vms.values() for role in vm.roles}
        if not isinstance(share, SmbStorage) or "worker" not in roles:
            return None
        if self.kubernetes is not None and self.kubernetes.csi_smb is not None:
            return None
        named, place = self.cluster.share if self.cluster else None, share.place
        if isinstance(named, MountStorage):
            return named
        if not re.fullmatch(SHARE_ID, place.share):  # it can have no sentinel
            return None
        return MountStorage(
            path=Path("/mnt", place.share),
            folder=PurePosixPath(place.folder),
            source=f"//{place.host}/{place.share}",
            sentinel=place.share,
        )

    @classmethod
    def mistakes(cls, values: Mapping[str, Any]) -> Iterable[Mistake]:
        """Return what is wrong between the machines, and between them and what they serve."""
        return (
            *machine_mistakes(values),
            *service_mistakes(values),
            *kubernetes_mistakes(values),
            *package_mistakes(values),
        )


def load_site(path: str | Path) -> Site:
    """Read a site file.

    Raises:
        UserError: with every mistake in the file, each with line, key and what would be right.
    """
    return load_model(path, Site)
