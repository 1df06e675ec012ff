"""What a virtual machine of the site is to be, and where its files are on its host."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import PurePosixPath

FOLDER = PurePosixPath("/var/lib/mlops")
"""On a host: images and VMs are below it."""


@dataclass(frozen=True)
class VirtualMachine:
    """A virtual machine.

    Attributes:
        host: the site's name of the machine that runs it.
        mac: as ``52:54:00:12:34:56``.
        address, prefix, gateway, nameservers: IPv4 of its one network card, which never change by themselves.
        memory_mb: MiB. disk_gb: GiB.
        bridge: the host's interface that its network card is bridged to.
        image: on the host, a cloud image that qemu-img reads; a VM's disk is a copy of it.
        user_key: public key that its user is logged in to by.
        host_key: its ssh server's private key, made here, so that it is known before the VM is there.
    """

    name: str
    host: str
    mac: str
    address: str
    prefix: int
    gateway: str
    nameservers: tuple[str, ...]
    memory_mb: int
    cpus: int
    disk_gb: int
    bridge: str
    image: PurePosixPath
    user_key: str
    host_key: str = field(repr=False)
    host_key_public: str

    @property
    def folder(self) -> PurePosixPath:
        """Return the folder of its files on the host."""
        return FOLDER / "vms" / self.name

    @property
    def seed(self) -> PurePosixPath:
        """Return the image that tells cloud-init who the VM is, see :mod:`infra.vms.seed`."""
        return self.folder / "seed.iso"

    @property
    def disk_bytes(self) -> int:
        """Return the size of its disk."""
        return self.disk_gb << 30


def mac_of(name: str) -> str:
    """Return the MAC of a VM that the site gives none: always the same for a name.

    The range is the one that QEMU uses, locally administered: no card that was ever sold has such an address.
    """
    digest = hashlib.sha256(f"mlops vm {name}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x52, 0x54, 0x00, *digest[:3]))
