"""VMs by libvirt, with QEMU: domains of the host's ``qemu:///system``.

A VM is changed by its present XML with what differs put in, so that what somebody has added to it stays. Commands:
virsh(1), https://libvirt.org/manpages/virsh.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from configs.machines import Accelerator
from configs.problems import Problem, UserError
from infra.machines.commands import Command, File, Removal
from infra.site.facts import Fact, Facts
from infra.site.step import Action, Change, Relay
from infra.vms.disk import disk_fact, make_disk, read_disk
from infra.vms.domain import amend_domain, domain_uuid, read_domain, render_domain
from infra.vms.driver import Observed, Power
from infra.vms.machine import VirtualMachine

VIRSH = ("env", "LC_ALL=C", "virsh", "--quiet", "--connect", "qemu:///system")
STOP_S = 180
"""A guest that has not shut down by then is ended as by a power cut."""
_NOT_THERE = "failed to get domain"
_OFF = frozenset({"shut off", "crashed"})

_VIRSH = f'v() {{ {" ".join(VIRSH)} "$@"; }}\n'
_START = f"""\
{_VIRSH}
systemctl enable --quiet libvirtd.service libvirt-guests.service || exit
v autostart "$1" || exit
case "$(v domstate "$1")" in
"shut off" | crashed) ;;
paused) exec {" ".join(VIRSH)} resume "$1" ;;
*) exit 0 ;;
esac
said=$(v start "$1" 2>&1) && exit 0
log="/var/log/libvirt/qemu/$1.log"
echo "libvirt does not start it: $(echo "$said" | sed -n 's/^error: //p' | tail -n 1); see $log" >&2
grep -o 'qemu-system-[a-z0-9_]*: .*' "$log" | tail -n 1 >&2
exit 1
"""
_STOP = f"""\
{_VIRSH}
for second in $(seq 0 {STOP_S}); do
    case "$(v domstate "$1")" in "" | "shut off" | crashed) exit 0 ;; esac
    # Again and again: a guest that is still starting does not hear it.
    [ $((second % 20)) != 0 ] || v shutdown "$1" --mode acpi
    sleep 1
done
v destroy "$1"
"""
_GROW = f"""\
set -e
{_VIRSH}
used=$(v domblklist "$1" | sed -n 's/^ *vda  *//p')
if [ "$used" != "$2" ]; then
    echo "a disk with snapshots cannot be made larger: merge those of \\`virsh snapshot-list $1\\`" >&2
    exit 1
fi
exec qemu-img resize -q "$2" "$3"
"""
# Disks that somebody has added to the VM are theirs: undefine leaves all files alone.
_DESTROY = f"""\
{_VIRSH}
found=$(v domuuid "$1" 2>&1)
case "$found" in
"$3")
    v destroy "$1" 2>/dev/null
    v undefine "$1" --managed-save --snapshots-metadata --checkpoints-metadata || exit
    ;;
*"{_NOT_THERE}"*) ;;
*-*-*-*-*) echo "the VM $1 of this host is another one: it stays as it is" >&2; exit 1 ;;
*) echo "$found" >&2; exit 1 ;;
esac
for name in disk.qcow2 disk.qcow2.new disk.qcow2.layer seed.iso seed.iso.new meta-data meta-data.mlops-new; do
    rm -f "$2/$name"
done
[ ! -e "$2" ] || rmdir "$2" 2>/dev/null || echo "left in $2, as it is not ours: $(ls "$2" | xargs)"
"""


@dataclass(frozen=True)
class Libvirt:
    """The driver :class:`infra.vms.driver.Driver` of libvirt.

    Attributes:
        accelerator: as the site's file says: that there is a /dev/kvm does not mean that it works.
    """

    accelerator: Accelerator

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the Debian packages that a host needs."""
        return ("libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils")

    @property
    def readers(self) -> str:
        """Return root's: libvirt itself gives a VM's files to QEMU's account while it runs (``dynamic_ownership``)."""
        return "root"

    def facts(self, vm: VirtualMachine) -> tuple[Fact, ...]:
        """Return what :meth:`observe` reads."""
        return (_info_fact(vm), _xml_fact(vm), disk_fact(disk_path(vm)), _bridge_fact(vm), self._processor())

    def observe(self, vm: VirtualMachine, facts: Facts) -> Observed:
        """Return what libvirt says of the VM."""
        disk = read_disk(disk_path(vm), facts)
        unfit = tuple(self._unfit(vm, facts))
        found = _domain(vm, facts)
        if found is None or found["uuid"] != domain_uuid(vm.name):
            # Its disk has data, perhaps: it is not made anew, and nothing that is done now may be undone with it.
            kept = disk.there and not unfit
            differences = ("libvirt does not know it",) if kept else ()
            return Observed(Power.OFF if kept else Power.ABSENT, disk.size, differences=differences, unfit=unfit)
        told = _info(vm, facts)
        return Observed(
            Power.OFF if told.get("State") in _OFF else Power.RUNNING,
            disk.size,
            told.get("Autostart") == "enable",
            tuple(self._differences(vm, facts[_xml_fact(vm)].text)),
            unfit,
        )

    def create(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what makes the disk of the image, and the VM around it."""
        return (make_disk(vm, disk_path(vm), "qcow2"), *self.define(vm))

    def define(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what defines the VM, or puts into its definition what differs."""

        def then(found: str) -> tuple[Command | File | Removal, ...]:
            try:
                text = self._amended(vm, found)
            except ValueError as error:
                raise UserError(Problem(f"{vm.host}, VM {vm.name}", str(error), "look at `virsh dumpxml`")) from None
            return (Command((*VIRSH, "define", "/dev/stdin"), stdin=text),)

        # That it is not there is told by an empty answer; that libvirt does not answer is an error.
        script = f'{_VIRSH}v list --all --name | grep -qFx -e "$1" || {{ v list >/dev/null; exit; }}\n'
        script += 'v dumpxml --inactive "$1"'
        return (Relay(vm.host, Command(("sh", "-c", script, "sh", vm.name)), then),)

    def grow(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what makes the disk larger."""
        return (Command(("sh", "-c", _GROW, "sh", vm.name, str(disk_path(vm)), str(vm.disk_bytes))),)

    def start(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what starts the VM, now and with the host, and has it shut down with the host."""
        return (Command(("sh", "-c", _START, "sh", vm.name)),)

    def stop(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what presses the VM's power button, and ends it when it does not go."""
        return (Command(("sh", "-c", _STOP, "sh", vm.name), timeout_s=STOP_S * 2),)

    def destroy(self, vm: VirtualMachine) -> tuple[Action, ...]:
        """Return what removes the VM, its disk and its seed; other disks that it has stay."""
        return (Command(("sh", "-c", _DESTROY, "sh", vm.name, str(vm.folder), domain_uuid(vm.name))),)

    def _amended(self, vm: VirtualMachine, found: str) -> str:
        if not found.strip():
            return render_domain(vm, disk_path(vm), self.accelerator)
        return amend_domain(found, vm, disk_path(vm), self.accelerator)

    def _differences(self, vm: VirtualMachine, text: str) -> Iterator[str]:
        found = read_domain(text)
        for name, wanted in read_domain(self._amended(vm, text)).items():
            if found[name] != wanted:
                yield f"{name} is {found[name] or 'not there'}, not {wanted}"

    def _processor(self) -> Fact:
        return Fact(("test", "-c", "/dev/kvm") if self.accelerator == "kvm" else ("true",))

    def _unfit(self, vm: VirtualMachine, facts: Facts) -> Iterator[Change]:
        what = f"run VM {vm.name} by libvirt"
        if not facts[_bridge_fact(vm)].ok:
            remedy = f"make one that holds the host's network card (man systemd.netdev), and name it in hosts.{vm.host}"
            yield Change(what, f"{vm.host} has no bridge {vm.bridge}", by_hand=remedy)
        if not facts[self._processor()].ok:
            remedy = f"turn virtualization on in the host's firmware, or give hosts.{vm.host} `accelerator: tcg`"
            yield Change(what, f"there is no /dev/kvm on {vm.host}", by_hand=remedy)
        asked = facts[_xml_fact(vm)]
        # Without virsh there is no VM: its package comes with the host's image.
        if not asked.ok and asked.status != 127 and _NOT_THERE not in asked.text:
            remedy = f"look on {vm.host}: `systemctl status libvirtd`"
            yield Change(what, f"libvirt does not answer: {' '.join(asked.text.split())}", by_hand=remedy)
        found = _domain(vm, facts)
        if found is None:
            if asked.ok:
                yield Change(what, "its definition cannot be read", by_hand=f"look at `virsh dumpxml {vm.name}` there")
            return
        if found["uuid"] != domain_uuid(vm.name):
            remedy = "give the VM another name in the site's file, or the other: `virsh domrename`"
            yield Change(what, f"{vm.host} has another VM of this name, {found['uuid']}", by_hand=remedy)
        elif not read_disk(disk_path(vm), facts).there:
            remedy = f"bring {disk_path(vm)} back from a backup, or begin anew: `mlops site destroy {vm.name}`"
            yield Change(what, "its disk's file is gone", by_hand=remedy)


def disk_path(vm: VirtualMachine) -> PurePosixPath:
    """Return where the VM's disk is."""
    return vm.folder / "disk.qcow2"


def _info_fact(vm: VirtualMachine) -> Fact:
    return Fact((*VIRSH, "dominfo", vm.name))


def _xml_fact(vm: VirtualMachine) -> Fact:
    return Fact((*VIRSH, "dumpxml", "--inactive", vm.name))


def _bridge_fact(vm: VirtualMachine) -> Fact:
    return Fact(("test", "-d", f"/sys/class/net/{vm.bridge}/bridge"))


def _domain(vm: VirtualMachine, facts: Facts) -> dict[str, str] | None:
    """Return the VM's definition, None: libvirt tells none."""
    reading = facts[_xml_fact(vm)]
    try:
        return read_domain(reading.text) if reading.ok else None
    except ValueError:
        return None


def _info(vm: VirtualMachine, facts: Facts) -> dict[str, str]:
    lines = (line.partition(":") for line in facts[_info_fact(vm)].text.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}
