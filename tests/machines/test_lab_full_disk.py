"""A machine whose disk is full while it is provisioned: one sentence says so, and with room made a run completes."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab import Lab
from lab_sites import LabSite

from infra.site.engine import State, problems_of

pytestmark = pytest.mark.machine
DISK_MB = 300


def test_a_full_disk_is_told_as_one_and_with_room_made_the_next_run_completes(lab: Lab, tmp_path: Path) -> None:
    site = LabSite(lab, tmp_path / "checkout", disk_mb=DISK_MB)
    machine = site.machines["storage"]
    steps = [step for step in site.steps() if step.machine == "storage"]
    # Enough for what comes first, and for Samba to be begun, never for all of it.
    filler = "/var/tmp/filler"
    machine.run("sh", "-c", f"dd if=/dev/zero of={filler} bs=1M count={DISK_MB - 60} status=none")
    told = []
    for _ in range(2):  # a second try finds what dpkg left half done, and still no room
        (problem,) = problems_of(site.run(apply=True, steps=steps))
        assert problem.where == "storage"
        assert problem.what.startswith("has no room left on its disk: ")
        assert len(problem.what.splitlines()) == 1
        assert "make room" in problem.remedy
        told.append(problem.what)
    machine.run("rm", filler)
    outcomes = site.run(apply=True, steps=steps)
    assert {key: item.error for key, item in outcomes.items() if item.error} == {}, told
    assert {item.state for item in site.run(apply=True, steps=steps).values()} == {State.FITS}
    assert machine.run("dpkg", "--audit").strip() == ""
