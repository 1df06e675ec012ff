"""A VM for tests of drivers."""

from __future__ import annotations

from pathlib import PurePosixPath

from infra.vms.machine import VirtualMachine


def example_vm() -> VirtualMachine:
    return VirtualMachine(
        name="one",
        host="desk",
        mac="52:54:00:12:34:56",
        address="192.168.10.40",
        prefix=24,
        gateway="192.168.10.1",
        nameservers=("192.168.10.1",),
        memory_mb=4096,
        cpus=2,
        disk_gb=5,
        bridge="eth0",
        image=PurePosixPath("/var/lib/mlops/images/cloud.img"),
        user_key="ssh-ed25519 AAAA user",
        host_key="private",
        host_key_public="ssh-ed25519 BBBB one",
    )
