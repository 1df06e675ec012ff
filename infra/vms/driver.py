"""What a driver of virtual machines is: it says how a VM is asked for and changed on its host. It does nothing itself.

All of it is pure: facts to read and actions to do are run by the site's engine, as root, on the host, which may be this
machine or one that ssh reaches. The rules (what may be changed when) are in :mod:`infra.vms.ensure`, once for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from infra.site.facts import Fact, Facts
from infra.site.step import Action, Change
from infra.vms.machine import VirtualMachine


class Power(StrEnum):
    """Whether a VM is there and runs. One that is suspended or starting runs."""

    ABSENT = "not there"
    OFF = "off"
    RUNNING = "running"


@dataclass(frozen=True)
class Observed:
    """What a host says of a VM.

    Attributes:
        disk_bytes: as the guest sees it; None where it cannot be told.
        autostarts: whether it starts with the host.
        differences: of its definition from what is wanted, as ``memory is 4096 MB, not 8192``; the disk's size is none.
        unfit: what a person has to do at the host before it can run this VM at all, each with ``by_hand``.
    """

    power: Power
    disk_bytes: int | None = None
    autostarts: bool = False
    differences: tuple[str, ...] = ()
    unfit: tuple[Change, ...] = ()


class Driver(Protocol):
    """Makes VMs by one hypervisor.

    Every action may meet what a killed run left half done, and completes it. None but ``destroy`` removes anything
    that could hold data.
    """

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the Debian packages that a host needs for it."""
        ...

    @property
    def readers(self) -> str:
        """Return the host's group that reads a VM's seed; where there is none, a system account with it is made."""
        ...

    def facts(self, vm: VirtualMachine) -> tuple[Fact, ...]:
        """Return what :meth:`observe` reads."""
        ...

    def observe(self, vm: VirtualMachine, facts: Facts) -> Observed:
        """Return what the host says of the VM."""
        ...

    def create(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what makes a VM that is absent: defined, with its own disk of the wanted size; it is off then.

        ``vm.seed`` is there already, as ``vm.image`` is.
        """
        ...

    def define(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what mends all ``differences`` of a VM that is off."""
        ...

    def grow(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what makes the disk of a VM that is off as large as wanted; only asked for where it is smaller."""
        ...

    def start(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what starts the VM, now and with the host; one that runs goes on."""
        ...

    def stop(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what shuts the VM down as its power button does, and ends it if it does not go by itself."""
        ...

    def destroy(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what ends the VM at once and removes definition, disk, seed and folder, as far as they are there."""
        ...
