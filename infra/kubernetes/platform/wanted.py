"""What the platform is to be: the values that its manifests are made of."""

from __future__ import annotations

from dataclasses import dataclass

from configs.cluster import Cluster
from configs.storage import DirectoryStorage, MountStorage, SmbStorage


@dataclass(frozen=True)
class Wanted:
    """A platform.

    Attributes:
        image: the run image, which the servers run from, too; by digest or version.
        commit: the commit in that image, None where it is not known.
        share: how nodes reach the share, None where pods have none to mount.
        csi_smb: the cluster has csi-driver-smb, so that a share of kind ``smb`` is mounted.
        pull_secrets: names of the Secrets with which the image is pulled.
    """

    cluster: Cluster
    image: str
    commit: str | None = None
    share: DirectoryStorage | MountStorage | SmbStorage | None = None
    csi_smb: bool = False
    pull_secrets: tuple[str, ...] = ()

    @property
    def namespace(self) -> str:
        """Return the namespace of everything that has one."""
        return self.cluster.namespace
