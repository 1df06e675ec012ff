"""Step ``health`` as a pure step: what df, systemd and the clock say in, what a person has to do out."""

from __future__ import annotations

from step_changes import fact, found

from infra.site.facts import Reading
from infra.site.step import Change
from infra.site.steps.health import health_step

STEP = health_step("worker", ())
HEAD = "Use% IUse% Mounted on\n"


def disks(*lines: str) -> list[Change]:
    return found(STEP, {fact(STEP, "df"): Reading(0, HEAD + "".join(f"{line}\n" for line in lines))})


def test_a_full_disk_is_told_by_its_own_place_alone() -> None:
    task = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/9d3e/rootfs"
    (change,) = disks(" 91%   12% /", f" 91%   12% {task}", "  3%    1% /boot")
    assert (change.what, change.why) == ("make room in /", "91% of its space are used")
    (change,) = disks(" 10%   95% /var/lib/my data")
    assert (change.what, change.why) == ("make room in /var/lib/my data", "95% of its inodes are used")


def test_what_has_failed_and_a_clock_out_of_step_are_told() -> None:
    units = Reading(0, "smbd.service loaded failed failed Samba\n")
    (change,) = found(STEP, {fact(STEP, "--failed"): units})
    assert (change.what, change.by_hand) == ("mend smbd.service", "look why: journalctl -b -u smbd.service")
    clock = {fact(STEP, "timedatectl"): Reading(0, "no\n")}
    assert [change.what for change in found(STEP, clock)] == ["set the clock"]
    # A container has its host's.
    assert found(STEP, clock | {fact(STEP, "systemd-detect-virt"): Reading(0)}) == []
