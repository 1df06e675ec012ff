"""A VM's own disk: a file on its host, made of the image once and never again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePosixPath

from infra.machines.commands import Command
from infra.site.facts import Fact, Facts
from infra.vms.machine import VirtualMachine

MAKE_S = 1800
_GONE = 44

# It has its name when it is whole. By way of a layer of the wanted size: qemu-img cannot make a VDI larger.
_MAKE = """\
set -e
umask 077
[ ! -e "$2" ] || exit 0
[ -e "$1" ] || { echo "there is no image $1: run the step \\`image\\` first" >&2; exit 1; }
told=$(qemu-img info --output=json "$1")
format=$(echo "$told" | sed -n 's/^    "format": "\\(.*\\)",*$/\\1/p')
size=$(echo "$told" | sed -n 's/^    "virtual-size": \\([0-9]*\\),*$/\\1/p')
if [ "$size" -gt "$4" ]; then
    echo "the image is larger than the disk: $size bytes of $4; write a larger disk_gb" >&2
    exit 1
fi
rm -f "$2.new" "$2.layer"
qemu-img create -q -f qcow2 -F "$format" -b "$1" "$2.layer" "$4"
qemu-img convert -O "$3" "$2.layer" "$2.new"
rm -f "$2.layer"
sync "$2.new"
mv -nT "$2.new" "$2"
"""


@dataclass(frozen=True)
class Disk:
    """A disk as its host sees it.

    Attributes:
        there: False: its file is not.
        size: bytes, as the guest sees them; None where they cannot be told.
    """

    there: bool
    size: int | None


def disk_fact(path: PurePosixPath) -> Fact:
    """Ask for a disk, also for one that is in use."""
    script = f'[ -e "$1" ] || exit {_GONE}; exec qemu-img info --force-share --output=json "$1"'
    return Fact(("sh", "-c", script, "sh", str(path)))


def read_disk(path: PurePosixPath, facts: Facts) -> Disk:
    """Return what :func:`disk_fact` was answered."""
    reading = facts[disk_fact(path)]
    if not reading.ok:
        return Disk(reading.status != _GONE, None)
    try:
        size = json.loads(reading.text)["virtual-size"]
    except (ValueError, KeyError, TypeError):
        return Disk(True, None)
    return Disk(True, int(size))


def make_disk(vm: VirtualMachine, path: PurePosixPath, form: str) -> Command:
    """Return the command that makes the disk; one that is there stays as it is.

    Args:
        form: as qemu-img calls it: ``qcow2``, ``vdi``.
    """
    return Command(("sh", "-c", _MAKE, "sh", str(vm.image), str(path), form, str(vm.disk_bytes)), timeout_s=MAKE_S)
