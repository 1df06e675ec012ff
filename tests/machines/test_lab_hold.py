"""Locks of machines: two people with two checkouts change one site, and one of them is told to wait, and for whom."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab import Lab, LabMachine
from lab_sites import ended, start_mlops

from configs.problems import UserError
from infra.machines.hold import LOCK, Holds
from infra.machines.host_keys import pin
from infra.machines.ssh import Machine
from infra.machines.trouble import Login

pytestmark = pytest.mark.machine
CHECKOUT = Path(__file__).parents[2]
FILE = """\
storage: {{kind: smb, url: "smb://alice@{one}/share/dvc", password: {{file: share-password}}}}
network: {{cidr: {network}.0/24, gateway: {network}.1}}
hosts:
  one: {{address: {one}, ssh: {{user: admin, key: {key}}}}}
  two: {{address: {two}, ssh: {{user: admin, key: {key}}}}}
"""
HOLDER = """\
import sys, time
from pathlib import Path
from infra.machines.hold import Holds
from infra.machines.ssh import Machine
from infra.machines.trouble import Login
name, address, key, folder = sys.argv[1:]
machine = Machine(Login(name, address, "admin", 22, Path(key)), Path(folder))
with Holds(Path("/home/alice/site")) as holds, machine:
    holds.take([machine])
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def machines(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> list[LabMachine]:
    return lab.add("one", "two")


@pytest.fixture
def folder(machines: list[LabMachine], tmp_path: Path) -> Path:
    for machine in machines:
        pin(tmp_path / "state", machine.name, [machine.host_key])
    return tmp_path / "state"


def reached(machine: LabMachine, folder: Path) -> Machine:
    return Machine(Login(machine.name, machine.address, "admin", 22, machine.key), folder)


def holder(machine: LabMachine, folder: Path) -> subprocess.Popen[str]:
    """A process of somebody else that has a machine for itself."""
    words = (machine.name, machine.address, str(machine.key), str(folder))
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *words],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    return process


def test_a_held_machine_is_refused_with_all_that_are_and_by_whom(machines: list[LabMachine], folder: Path) -> None:
    process = holder(machines[1], folder)
    try:
        one, two = (reached(machine, folder) for machine in machines)
        with Holds(Path("/home/bob/site")) as holds, one, two, pytest.raises(UserError) as caught:
            holds.take([two, one])
        (problem,) = caught.value.problems
        assert problem.where == "two"
        assert f"process {process.pid}, /home/alice/site, since 20" in problem.what
        # What was taken before is given back.
        one = reached(machines[0], folder)
        with Holds(Path("/home/bob/site")) as holds, one:
            holds.take([one])
            assert "/home/bob/site" in machines[0].run("cat", LOCK)
    finally:
        process.kill()


def test_a_killed_process_holds_nothing_and_so_does_one_that_ended(machines: list[LabMachine], folder: Path) -> None:
    process = holder(machines[0], folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(3):
        began = time.monotonic()
        one = reached(machines[0], folder)
        with Holds(folder) as holds, one:
            holds.take([one])
        assert time.monotonic() - began < 30
    assert machines[0].run("flock", "--wait", "5", LOCK, "echo", "free") == "free\n"


def test_machines_that_are_away_are_no_reason_to_refuse(machines: list[LabMachine], folder: Path) -> None:
    machines[1].disconnect()
    try:
        one, two = (reached(machine, folder) for machine in machines)
        with Holds(folder) as holds, one, two:
            holds.take([one, two])
            assert str(folder) in machines[0].run("cat", LOCK)
    finally:
        machines[1].connect()


def test_a_second_checkout_is_refused_and_may_still_look(machines: list[LabMachine], lab: Lab, folder: Path) -> None:
    root = folder.parent
    (root / "configs").mkdir()
    addresses = {machine.name: machine.address for machine in machines}
    (root / "configs/site.yaml").write_text(FILE.format(network=lab.network, key=lab.key, **addresses))
    shutil.copytree(folder, root / ".mlops/site")
    process = holder(machines[1], folder)
    try:
        said = {word: ended(start_mlops(root, "site", word, "--step", "health")) for word in ("apply", "plan")}
    finally:
        process.kill()
    assert said["apply"][0] == 1
    assert "two: is changed by somebody else now: " in said["apply"][1]
    assert "/home/alice/site" in said["apply"][1]
    assert said["plan"][0] in (0, 2)
