"""VMs by plain QEMU: a systemd unit for each on its host, with the whole command line.

QEMU runs as an account of its own that sees the files of its one VM alone. The seed is a virtio disk, as the VM's own
is: kernels made for clouds know no other. What the VM prints on its console is in the unit's journal.
Options: qemu-system-x86_64(1), systemd.exec(5).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import PurePosixPath

from configs.machines import Accelerator
from infra.machines.commands import Command, File
from infra.site.facts import Fact, Facts
from infra.site.reading import file_fact, read_unit, unit_fact
from infra.site.step import Action, Change
from infra.vms.driver import Observed, Power
from infra.vms.machine import FOLDER, VirtualMachine

ACCOUNT = "mlops-vm"
SHUTDOWN_S = 120
"""A VM that has not shut down by then is ended as by a power cut."""
COPY_S = 1800
_STARTS_S = 60
# Without a processor's help the newer instructions cost more than they save.
_PROCESSORS: dict[Accelerator, str] = {"kvm": "host", "tcg": "Nehalem"}

_DISK = """\
set -e
umask 077
rm -f "$2.new"
qemu-img convert -O qcow2 "$1" "$2.new"
qemu-img resize -q "$2.new" "$3"
chown "$4:$4" "$2.new"
sync "$2.new"
mv -fT "$2.new" "$2"
"""
# QEMU reads no word of a connection that is closed at once; a guest that is starting does not hear the first time.
_POWER_BUTTON = (
    "while :; do { echo system_powerdown; sleep 1; } | socat - UNIX-CONNECT:$1 >/dev/null; "
    "for turn in 1 2 3 4 5 6 7 8 9; do kill -0 $MAINPID 2>/dev/null || exit 0; sleep 1; done; done"
)
_START = f"""\
systemctl daemon-reload && systemctl enable --now "$1" || {{ journalctl --no-pager -n 20 -u "$1"; exit 1; }}
for turn in $(seq {_STARTS_S * 5}); do
    echo 'info status' | socat - "UNIX-CONNECT:$2" 2>/dev/null | grep -q 'VM status: running' && exit
    [ "$(systemctl show -P NRestarts "$1")" = 0 ] || break
    sleep 0.2
done
journalctl --no-pager -n 20 -u "$1"
# Or it would be tried again and again, and at times look as if it ran.
systemctl stop --no-block "$1"
systemctl kill --signal=KILL "$1"
systemctl stop "$1"
exit 1
"""
# Stopped first, so that it is not started again; killed, so that nobody waits for its shutdown.
_DESTROY = """\
systemctl disable "$1"
systemctl stop --no-block "$1"
systemctl kill --signal=KILL "$1"
systemctl stop "$1"
set -e
rm -f "/etc/systemd/system/$1"
systemctl daemon-reload
systemctl reset-failed "$1" 2>/dev/null || true
for name in disk.qcow2 disk.qcow2.new seed.iso seed.iso.new meta-data meta-data.mlops-new; do
    rm -f "$2/$name"
done
[ ! -e "$2" ] || rmdir "$2" 2>/dev/null || echo "left in $2, as it is not ours: $(ls "$2" | xargs)"
"""


@dataclass(frozen=True)
class Qemu:
    """The driver :class:`infra.vms.driver.Driver` of plain QEMU.

    Attributes:
        accelerator: as the site's file says: that there is a /dev/kvm does not mean that it works.
    """

    accelerator: Accelerator

    @property
    def packages(self) -> tuple[str, ...]:
        return ("qemu-system-x86", "qemu-utils", "socat", "iproute2")

    @property
    def readers(self) -> str:
        return ACCOUNT

    def facts(self, vm: VirtualMachine) -> tuple[Fact, ...]:
        return (
            file_fact(self.unit_file(vm)),
            unit_fact(_unit(vm)),
            _disk_fact(vm),
            _bridge_fact(vm),
            self._processor(),
        )

    def observe(self, vm: VirtualMachine, facts: Facts) -> Observed:
        unfit = tuple(self._unfit(vm, facts))
        unit, disk = read_unit(_unit(vm), facts), facts[_disk_fact(vm)]
        reading = facts[file_fact(self.unit_file(vm))]
        if not disk.ok:
            if reading.ok:
                what, why = f"make a disk for VM {vm.name}", f"{_disk(vm)} is gone or cannot be read"
                remedy = f"bring it back from a backup, or give up what was on it: `mlops site destroy {vm.name}`"
                unfit = (*unfit, Change(what, why, by_hand=remedy))
            return Observed(Power.ABSENT, unfit=unfit)
        present = reading.text.splitlines() if reading.ok else []
        lacking = [line for line in self.unit_file(vm).text.splitlines() if line not in present]
        differences = tuple(f"its unit lacks `{line.strip(' ').rstrip(chr(92)).strip()}`" for line in lacking)
        return Observed(
            # One that fails and is started again and again is `activating`.
            Power.RUNNING if unit.active in ("active", "deactivating", "reloading") else Power.OFF,
            int(json.loads(disk.text)["virtual-size"]),
            autostarts=unit.file == "enabled",
            differences=differences if reading.ok else ("its unit is not there",),
            unfit=unfit,
        )

    def create(self, vm: VirtualMachine) -> tuple[Action, ...]:
        make = ("sh", "-c", _DISK, "sh", str(vm.image), str(_disk(vm)), str(vm.disk_bytes), ACCOUNT)
        # The disk before the unit: a unit without a disk is one that has lost it.
        return (Command(make, timeout_s=COPY_S), *self.define(vm))

    def define(self, vm: VirtualMachine) -> tuple[Action, ...]:
        return (self.unit_file(vm), Command(("systemctl", "daemon-reload")))

    def grow(self, vm: VirtualMachine) -> tuple[Action, ...]:
        return (Command(("qemu-img", "resize", "-q", str(_disk(vm)), str(vm.disk_bytes))),)

    def start(self, vm: VirtualMachine) -> tuple[Action, ...]:
        return (Command(("sh", "-c", _START, "sh", _unit(vm), str(_monitor(vm)))),)

    def stop(self, vm: VirtualMachine) -> tuple[Action, ...]:
        return (Command(("systemctl", "stop", _unit(vm)), timeout_s=SHUTDOWN_S + 60),)

    def destroy(self, vm: VirtualMachine) -> tuple[Action, ...]:
        return (Command(("sh", "-c", _DESTROY, "sh", _unit(vm), str(vm.folder))),)

    def command(self, vm: VirtualMachine) -> tuple[tuple[str, ...], ...]:
        """Return QEMU's options, each with its value."""
        return (
            ("-name", vm.name),
            ("-no-user-config",),
            ("-nodefaults",),
            ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
            ("-machine", f"q35,accel={self.accelerator}"),
            ("-cpu", _PROCESSORS[self.accelerator]),
            ("-smp", str(vm.cpus)),
            ("-m", str(vm.memory_mb)),
            ("-display", "none"),
            ("-chardev", "stdio,id=console,signal=off"),
            ("-serial", "chardev:console"),
            ("-monitor", f"unix:{_monitor(vm)},server=on,wait=off"),
            ("-drive", f"if=none,id=disk,file={_disk(vm)},format=qcow2,discard=unmap"),
            ("-device", "virtio-blk-pci,drive=disk,bootindex=0"),
            ("-drive", f"if=none,id=seed,file={vm.seed},format=raw,readonly=on"),
            ("-device", "virtio-blk-pci,drive=seed"),
            ("-netdev", f"tap,id=site,ifname={tap_of(vm.name)},script=no,downscript=no"),
            ("-device", f"virtio-net-pci,netdev=site,mac={vm.mac}"),
            ("-device", "virtio-rng-pci"),
        )

    def unit_file(self, vm: VirtualMachine) -> File:
        """Return the unit: all that the VM is."""
        tap, folder = tap_of(vm.name), f"/run/{_unit(vm).removesuffix('.service')}"
        command = " \\\n    ".join(("/usr/bin/qemu-system-x86_64", *(" ".join(words) for words in self.command(vm))))
        kvm = "SupplementaryGroups=kvm\nDeviceAllow=/dev/kvm rw\n" if self.accelerator == "kvm" else ""
        text = f"""\
# Rendered for this site: changes here are lost.
[Unit]
Description=Virtual machine {vm.name} of the site
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
User={ACCOUNT}
Group={ACCOUNT}
RuntimeDirectory={PurePosixPath(folder).name}
RuntimeDirectoryMode=0700
ExecStartPre=-+/usr/sbin/ip link delete dev {tap}
ExecStartPre=+/usr/sbin/ip tuntap add dev {tap} mode tap user {ACCOUNT}
ExecStartPre=+/usr/sbin/ip link set dev {tap} master {vm.bridge} up
ExecStart={command}
ExecStop=/bin/sh -c '{_POWER_BUTTON}' sh {_monitor(vm)}
ExecStopPost=-+/usr/sbin/ip link delete dev {tap}
TimeoutStopSec={SHUTDOWN_S}
Restart=on-failure
RestartSec=5
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
TemporaryFileSystem={FOLDER}
BindPaths={vm.folder}
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
{kvm}
[Install]
WantedBy=multi-user.target
"""
        return File(PurePosixPath("/etc/systemd/system", _unit(vm)), text)

    def _processor(self) -> Fact:
        return Fact(("test", "-c", "/dev/kvm") if self.accelerator == "kvm" else ("true",))

    def _unfit(self, vm: VirtualMachine, facts: Facts) -> list[Change]:
        found = []
        if not facts[_bridge_fact(vm)].ok:
            what, why = f"make the bridge {vm.bridge} on {vm.host}", "is no bridge there"
            remedy = (
                f"make one that holds the host's network card (man systemd.netdev), name it in hosts.{vm.host}.bridge"
            )
            found.append(Change(what, why, by_hand=remedy))
        if not facts[self._processor()].ok:
            remedy = f"turn virtualization on in the host's firmware, or give hosts.{vm.host} `accelerator: tcg`"
            found.append(Change(f"run VMs by KVM on {vm.host}", "there is no /dev/kvm", by_hand=remedy))
        return found


def tap_of(name: str) -> str:
    """Return the name of a VM's network interface on its host; Linux has room for 15 characters."""
    return f"mlops{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def _unit(vm: VirtualMachine) -> str:
    return f"mlops-vm-{vm.name}.service"


def _monitor(vm: VirtualMachine) -> PurePosixPath:
    return PurePosixPath("/run", _unit(vm).removesuffix(".service"), "monitor")


def _disk(vm: VirtualMachine) -> PurePosixPath:
    return vm.folder / "disk.qcow2"


def _disk_fact(vm: VirtualMachine) -> Fact:
    return Fact(("qemu-img", "info", "--force-share", "--output=json", str(_disk(vm))))


def _bridge_fact(vm: VirtualMachine) -> Fact:
    return Fact(("test", "-d", f"/sys/class/net/{vm.bridge}/bridge"))
