"""Kernel and swap as pure functions: what a machine says in, what is still to be done out."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from infra.machines.commands import Command, File
from infra.site.facts import Fact, Reading
from infra.site.step import Change
from infra.site.steps.kernel import FSTAB, SETTINGS, SWAP_NOTE, fstab_without_swap, kernel_changes, kernel_facts

MODULES, SYSCTL, CONTAINER, LOADED, SET, SWAPS, FSTAB_FACT, TARGET = kernel_facts()
NO_SWAP = "Filename Type Size Used Priority\n"
FITS = {
    CONTAINER: Reading(1),
    LOADED: Reading(0, "btrfs\nbr_netfilter\noverlay\n"),
    SET: Reading(0, "".join(f"{name} = {value}\n" for name, value in SETTINGS.items())),
    SWAPS: Reading(0, NO_SWAP),
    FSTAB_FACT: Reading(0, "/dev/sda1 / ext4 defaults 0 1\n"),
    TARGET: Reading(1, "masked\n"),
    MODULES: Reading(1),
    SYSCTL: Reading(1),
}


def found(**known: Reading) -> list[Change]:
    """What is wanted of a machine that differs in what is named; its two files are looked at elsewhere."""
    named: Mapping[str, Fact] = {
        "container": CONTAINER,
        "loaded": LOADED,
        "settings": SET,
        "swaps": SWAPS,
        "fstab": FSTAB_FACT,
        "target": TARGET,
    }
    readings = FITS | {named[name]: reading for name, reading in known.items()}
    return [change for change in kernel_changes(readings) if ".d/" not in change.what]


def test_a_machine_as_wanted_is_left_alone() -> None:
    assert found() == []


def test_modules_that_are_missing_are_loaded() -> None:
    (change,) = found(loaded=Reading(0, "overlay\nbr_netfilter_of_others\n"))
    assert (change.what, change.actions) == ("load br_netfilter", (Command(("modprobe", "--all", "br_netfilter")),))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (f"{FITS[SET].text}".replace("ip_forward = 1", "ip_forward = 0"), "net.ipv4.ip_forward is 0"),
        ("net.ipv4.ip_forward = 1\n", "net.bridge.bridge-nf-call-iptables is not there"),
    ],
)
def test_settings_that_differ_are_set(said: str, why: str) -> None:
    (change,) = found(settings=Reading(0, said))
    assert why in change.why
    (command,) = change.actions
    assert isinstance(command, Command)
    assert command.argv == ("sysctl", "--load", "/etc/sysctl.d/95-mlops-kubernetes.conf")


def test_swap_is_turned_off_now_and_for_good() -> None:
    text = "# disks\nUUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw 0 0\n#/old none swap sw 0 0\n"
    changes = found(
        swaps=Reading(0, f"{NO_SWAP}/dev/sda2 partition 999 0 -2\n"),
        fstab=Reading(0, text),
        target=Reading(0, "static\n"),
    )
    assert [change.what for change in changes] == [f"write {FSTAB}", "mask swap.target", "turn swap off"]
    (file,) = changes[0].actions
    assert isinstance(file, File)
    assert file.text == text.replace("UUID=2", f"{SWAP_NOTE}UUID=2")
    assert "-UUID=2 none swap sw 0 0" in changes[0].diff
    assert changes[2].why == "/dev/sda2 is in use"


def test_fstab_is_only_touched_for_swap() -> None:
    odd = "UUID=1 / ext4 defaults 0 1\n\n\tUUID=3  /swap  ext4 defaults 0 2"
    assert found(fstab=Reading(0, odd)) == []
    assert found(fstab=Reading(1, "cat: /etc/fstab: No such file or directory")) == []
    assert fstab_without_swap(fstab_without_swap("a none swap\n")) == fstab_without_swap("a none swap\n")


def test_a_containers_kernel_is_its_hosts() -> None:
    others = {
        "loaded": Reading(0),
        "settings": Reading(0),
        "swaps": Reading(0, f"{NO_SWAP}/dev/zram0 partition 9 0 100\n"),
    }
    assert found(container=Reading(0), **others) == []
    assert [change.what.split()[0] for change in found(**others)] == ["load", "set", "turn"]
