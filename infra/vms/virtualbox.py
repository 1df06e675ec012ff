"""VMs by VirtualBox 7. Installing it, with its kernel module, is its host's owner's: the module is built for the host's
kernel and, under Secure Boot, signed by a key of theirs.

What is ours is told by its place: the settings of our VM are in our own folder, and nobody else's are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from infra.machines.commands import Command, Removal
from infra.site.facts import Fact, Facts
from infra.site.reading import file_changes, file_fact
from infra.site.step import Action, Change
from infra.vms.disk import disk_fact, make_disk, read_disk
from infra.vms.driver import Observed, Power
from infra.vms.machine import VirtualMachine
from infra.vms.vboxmanage import (
    BRIDGES,
    NOT_THERE,
    OFF,
    OLDEST,
    VBOXMANAGE,
    VERSION,
    info_fact,
    read_bridges,
    read_error,
    read_info,
    read_version,
)
from infra.vms.virtualbox_scripts import ATTACH, CONTROLLER, DESTROY, GROW, REGISTER, START, START_S
from infra.vms.virtualbox_units import HELPER, SERVER, STOP_S, UNITS, unit_files, vm_unit


class VirtualBox:
    """The driver, see :class:`infra.vms.driver.Driver`."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the Debian packages beside VirtualBox itself."""
        return ("procps", "qemu-utils")

    @property
    def readers(self) -> str:
        """Return the group of root: VirtualBox runs as root here."""
        return "root"

    def facts(self, vm: VirtualMachine) -> tuple[Fact, ...]:
        """Return what :meth:`observe` reads."""
        units = map(file_fact, unit_files(vm))
        return (VERSION, info_fact(vm.name), BRIDGES, disk_fact(disk_path(vm)), *units, _enabled_fact(vm))

    def observe(self, vm: VirtualMachine, facts: Facts) -> Observed:
        """Return what VirtualBox says of the VM."""
        unfit = tuple(_unfit(vm, facts))
        disk = read_disk(disk_path(vm), facts)
        info = _info(vm, facts)
        if info is None or not _is_ours(vm, info):
            # Its disk has data, perhaps: it is not made anew, and nothing that is done now may be undone with it.
            kept = disk.there and not unfit
            differences = ("VirtualBox does not know it",) if kept else ()
            return Observed(Power.OFF if kept else Power.ABSENT, disk.size, differences=differences, unfit=unfit)
        return Observed(
            Power.OFF if info.get("VMState") in OFF else Power.RUNNING,
            disk.size,
            facts[_enabled_fact(vm)].ok and not any(file_changes(file, facts) for file in unit_files(vm)),
            tuple(_differences(vm, info)),
            unfit,
        )

    def create(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what makes the disk of the image, and the VM around it."""
        return (make_disk(vm, disk_path(vm), "vdi"), *self.define(vm))

    def define(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what registers the VM and gives it all its settings; disks that were attached besides stay."""
        settings = [word for name, value in _settings(vm).items() for word in (f"--{name}", *value)]
        return (
            Command(("sh", "-c", REGISTER, "sh", vm.name, str(vm.folder.parent))),
            Command((*VBOXMANAGE, "modifyvm", vm.name, *settings)),
            Command(("sh", "-c", ATTACH, "sh", vm.name, str(disk_path(vm)), str(vm.seed))),
        )

    def grow(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what makes the disk larger."""
        return (Command(("sh", "-c", GROW, "sh", vm.name, str(disk_path(vm)), str(vm.disk_bytes)), timeout_s=600),)

    def start(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what starts the VM by its unit, now and at every boot of the host."""
        return (
            *unit_files(vm),
            Command(("systemctl", "daemon-reload")),
            Command(("systemctl", "enable", SERVER, vm_unit(vm))),
            Command(("sh", "-c", START, "sh", vm.name, vm_unit(vm)), timeout_s=START_S * 3),
        )

    def stop(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what presses the VM's power button, and switches it off when it does not go."""
        # The unit's own end does it; a VM that was started by hand is in no unit.
        script = f'systemctl stop "$2" 2>/dev/null; exec {HELPER.path} stop "$1"'
        return (HELPER, Command(("sh", "-c", script, "sh", vm.name, vm_unit(vm)), timeout_s=STOP_S * 2 + 60))

    def destroy(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what removes the VM, its disk and its seed; other disks that are attached to it stay."""
        argv = ("sh", "-c", DESTROY, "sh", vm.name, str(vm.folder.parent), vm_unit(vm))
        reload = Command(("systemctl", "daemon-reload"))
        return (Command(argv, timeout_s=STOP_S * 2), Removal(UNITS / vm_unit(vm)), reload)


def disk_path(vm: VirtualMachine) -> PurePosixPath:
    """Return where the VM's disk is."""
    return vm.folder / "disk.vdi"


def _settings(vm: VirtualMachine) -> dict[str, tuple[str, ...]]:
    return {
        "description": (f"Made by mlops for the site: change it in the site's file. At {vm.folder}.",),
        "memory": (str(vm.memory_mb),),
        "cpus": (str(vm.cpus),),
        "firmware": ("bios",),
        "ioapic": ("on",),
        "rtc-use-utc": ("on",),
        "graphicscontroller": ("vmsvga",),
        "vram": ("16",),
        "audio-enabled": ("off",),
        "nic1": ("bridged",),
        "nictype1": ("virtio",),
        "bridge-adapter1": (vm.bridge,),
        "mac-address1": (_mac(vm),),
        "cable-connected1": ("on",),
        # The kernel of a cloud image writes to a serial port, and is slow to start where there is none.
        "uart1": ("0x3F8", "4"),
        "uart-mode1": ("file", "/dev/null"),
        "boot1": ("disk",),
        "boot2": ("none",),
        "boot3": ("none",),
        "boot4": ("none",),
    }


def _shown(vm: VirtualMachine) -> dict[str, str]:
    """Return how showvminfo tells what matters of the settings."""
    return {
        "memory": str(vm.memory_mb),
        "cpus": str(vm.cpus),
        "ioapic": "on",
        "rtcuseutc": "on",
        "nic1": "bridged",
        "nictype1": "virtio",
        "bridgeadapter1": vm.bridge,
        "macaddress1": _mac(vm),
        "cableconnected1": "on",
        "boot1": "disk",
        f"{CONTROLLER}-0-0": str(disk_path(vm)),
        f"{CONTROLLER}-1-0": str(vm.seed),
    }


def _differences(vm: VirtualMachine, info: dict[str, str]) -> Iterator[str]:
    snapshots = f"{vm.folder}/Snapshots/"
    for name, wanted in _shown(vm).items():
        found = info.get(name, "none")
        of_snapshot = name == f"{CONTROLLER}-0-0" and found.startswith(snapshots)
        if found != wanted and not of_snapshot:
            yield f"{name} is {found}, not {wanted}"


def _unfit(vm: VirtualMachine, facts: Facts) -> Iterator[Change]:
    version = read_version(facts[VERSION])
    what = f"run VM {vm.name} by VirtualBox"
    if facts[VERSION].status == 127:
        remedy = (
            f"install VirtualBox {OLDEST} on {vm.host}, with its kernel module (virtualbox.org, Linux downloads, or"
        )
        remedy += " the distribution's virtualbox and virtualbox-dkms), or give the host another driver"
        yield Change(what, f"there is no VBoxManage on {vm.host}", by_hand=remedy)
        return
    if version and int(version.split(".")[0]) < OLDEST:
        remedy = f"install VirtualBox {OLDEST} or newer on {vm.host}"
        yield Change(what, f"VBoxManage is version {version}", by_hand=remedy)
        return
    info = _info(vm, facts)
    for fact in (VERSION, info_fact(vm.name), BRIDGES):
        # No answer is no answer: least of all that there is no such VM.
        if not facts[fact].ok and NOT_THERE not in facts[fact].text:
            asked = " ".join(fact.argv[fact.argv.index("VBoxManage") + 1 :])
            why = f"`VBoxManage {asked}` ended with {facts[fact].status}: {read_error(facts[fact].text)}"
            yield Change(what, why, by_hand=f"look on {vm.host}: `sudo VBoxManage {asked}`")
            return
    if info is not None and not _is_ours(vm, info):
        remedy = "give the VM another name in the site's file, or rename the other: `sudo VBoxManage modifyvm "
        remedy += f"{vm.name} --name NAME`"
        yield Change(what, f"root has another VM of this name, {info.get('CfgFile', 'unreadable')}", by_hand=remedy)
        return
    if vm.bridge not in read_bridges(facts[BRIDGES]):
        there = ", ".join(read_bridges(facts[BRIDGES])) or "none"
        remedy = f"write under hosts.{vm.host} `bridge:` with one of its interfaces: {there}"
        yield Change(what, f"{vm.host} has no interface {vm.bridge} to bridge to", by_hand=remedy)
    if info is not None and not read_disk(disk_path(vm), facts).there:
        remedy = f"bring {disk_path(vm)} back from a backup, or begin anew: destroy the VM, then apply the site"
        yield Change(what, "its disk's file is gone", by_hand=remedy)


def _info(vm: VirtualMachine, facts: Facts) -> dict[str, str] | None:
    """Return the VM's settings, None: VirtualBox tells none."""
    reading = facts[info_fact(vm.name)]
    return read_info(reading.text) if reading.ok else None


def _is_ours(vm: VirtualMachine, info: dict[str, str]) -> bool:
    return info.get("CfgFile") == f"{vm.folder}/{vm.name}.vbox"


def _enabled_fact(vm: VirtualMachine) -> Fact:
    # Given both, it is content with one.
    script = 'for unit; do systemctl is-enabled "$unit" || exit; done'
    return Fact(("sh", "-c", script, "sh", SERVER, vm_unit(vm)))


def _mac(vm: VirtualMachine) -> str:
    return vm.mac.replace(":", "").upper()
