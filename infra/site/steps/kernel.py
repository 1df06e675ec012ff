"""What Kubernetes needs of a machine's kernel, now and after every boot: modules, settings, and no swap.

Source: https://kubernetes.io/docs/setup/production-environment/container-runtimes/ and, for swap,
https://kubernetes.io/docs/concepts/architecture/nodes/#swap-memory.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from infra.machines.commands import Command, File
from infra.site.facts import Fact, Facts
from infra.site.reading import CONTAINED, file_changes, file_fact
from infra.site.step import Change

MODULES = ("overlay", "br_netfilter")
SETTINGS = {
    "net.bridge.bridge-nf-call-ip6tables": "1",
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.ipv4.ip_forward": "1",
    # kubelet with protectKernelDefaults refuses to start on others.
    "vm.overcommit_memory": "1",
    "vm.panic_on_oom": "0",
    "kernel.panic": "10",
    "kernel.panic_on_oops": "1",
    "kernel.keys.root_maxbytes": "25000000",
    "kernel.keys.root_maxkeys": "1000000",
}
FSTAB = PurePosixPath("/etc/fstab")
SWAP_NOTE = "# off for Kubernetes: "
_MODULES_FILE = File(PurePosixPath("/etc/modules-load.d/mlops-kubernetes.conf"), "".join(f"{m}\n" for m in MODULES))
# After the numbers of distributions, so that ours count.
_SETTINGS_FILE = File(
    PurePosixPath("/etc/sysctl.d/95-mlops-kubernetes.conf"), "".join(f"{k} = {v}\n" for k, v in SETTINGS.items())
)
# A module that is built into the kernel is in /sys/module as well, if it has anything to tell; overlay always has.
_LOADED = Fact(("ls", "/sys/module"))
_SET = Fact(("sysctl", "--ignore", *SETTINGS))
_SWAPS = Fact(("cat", "/proc/swaps"))
_FSTAB = Fact(("cat", str(FSTAB)))
_SWAP_TARGET = Fact(("systemctl", "is-enabled", "swap.target"))


def kernel_facts() -> tuple[Fact, ...]:
    """Ask for modules, settings and swap: those of now and those of the next boot."""
    files = (file_fact(_MODULES_FILE), file_fact(_SETTINGS_FILE))
    return (*files, CONTAINED, _LOADED, _SET, _SWAPS, _FSTAB, _SWAP_TARGET)


def kernel_changes(facts: Facts) -> Iterator[Change]:
    """Return what makes the kernel as Kubernetes needs it; that of a container is its host's, but the files."""
    yield from file_changes(_MODULES_FILE, facts)
    yield from file_changes(_SETTINGS_FILE, facts)
    yield from _lasting_swap(facts)
    if facts[CONTAINED].ok:
        return
    missing = [name for name in MODULES if name not in facts[_LOADED].text.split()]
    if missing:
        load = Command(("modprobe", "--all", *missing))
        yield Change(f"load {' '.join(missing)}", "not loaded", (load,))
    rows = dict(re.findall(r"(?m)^(\S+) = (\S*)$", facts[_SET].text))
    other = {name: rows.get(name, "not there") for name, value in SETTINGS.items() if rows.get(name) != value}
    if other:
        told = ", ".join(f"{name} is {value}" for name, value in other.items())
        yield Change(f"set {', '.join(other)}", told, (Command(("sysctl", "--load", str(_SETTINGS_FILE.path))),))
    swaps = [line.split()[0] for line in facts[_SWAPS].text.splitlines()[1:]]
    if swaps:
        off = Command(("swapoff", "--all"), timeout_s=900)
        yield Change("turn swap off", f"{', '.join(swaps)} is in use", (off,))


def fstab_without_swap(text: str) -> str:
    """Return ``/etc/fstab`` with its lines of swap made comments; nothing is lost, and a person sees why."""
    lines = []
    for line in text.splitlines():
        words = line.split()
        is_swap = len(words) >= 3 and not line.lstrip().startswith("#") and words[2] == "swap"
        lines.append(SWAP_NOTE + line if is_swap else line)
    return "".join(f"{line}\n" for line in lines)


def _lasting_swap(facts: Facts) -> Iterator[Change]:
    present = facts[_FSTAB]
    wanted = fstab_without_swap(present.text)
    if present.ok and wanted != present.text and wanted.splitlines() != present.text.splitlines():
        before, after = present.text.splitlines(), wanted.splitlines()
        diff = "\n".join(difflib.unified_diff(before, after, str(FSTAB), str(FSTAB), lineterm=""))
        yield Change(f"write {FSTAB}", "swap would be back after a reboot", (File(FSTAB, wanted),), diff)
    # Swap partitions that systemd finds by itself, and those of zram, are started by this target alone.
    if facts[_SWAP_TARGET].text.strip() != "masked":
        mask = Command(("systemctl", "mask", "swap.target"))
        yield Change("mask swap.target", "swap that no file names would be back after a reboot", (mask,))
