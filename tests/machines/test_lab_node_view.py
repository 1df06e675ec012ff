"""What a machine says of its kubelet to a step of another machine: over ssh, by systemd and its journal, or nothing.

Its kubelet is a unit of that name which ends, or stays, as the real one does; the real one is in ``tests/cluster``.
"""

from __future__ import annotations

import datetime
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from lab import Lab, LabMachine

from infra.machines.host_keys import pin
from infra.machines.ssh import Machine
from infra.machines.trouble import Login
from infra.site.engine import run_steps
from infra.site.facts import Facts
from infra.site.step import Step
from infra.site.steps.node_view import Described, Verdict, judge, own_facts
from infra.site.steps.starting import RUNS_S

pytestmark = pytest.mark.machine
UNIT = """\
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/sh /root/kubelet
Restart=always
RestartSec=1
"""
FAILS = """echo 'E1126 23:50:11.3       1 run.go:72] "command failed" err="unknown flag"' >&2; exit 1"""


@pytest.fixture(scope="module")
def machines(lab: Lab) -> list[LabMachine]:
    return lab.add("master", "worker")


def judged(machines: list[LabMachine], folder: Path) -> Verdict:
    """What a step of the control plane says of the worker, of which the cluster says that it is silent."""
    worker, now = machines[1], datetime.datetime.now(datetime.UTC)
    found: list[Verdict] = []

    def changes(facts: Facts) -> list[object]:
        described = Described(worker.name, worker.address, "cluster")
        found.append(judge(described, "worker is silent", now, facts, new=False))
        return []

    step = Step("looks", "master", (RUNS_S,), changes, asks=lambda _: own_facts("worker"))  # type: ignore[arg-type]
    with ExitStack() as stack:
        reached = {}
        for machine in machines:
            pin(folder, machine.name, [machine.host_key])
            login = Login(machine.name, machine.address, "admin", 22, machine.key)
            reached[machine.name] = stack.enter_context(Machine(login, folder))
        outcome = run_steps([step], reached, lambda *_: None, apply=False)["master", "looks"]
    assert outcome.error is None
    return found[0]


def run_kubelet(machine: LabMachine, does: str) -> None:
    (machine.root / "root/kubelet").write_text(does)
    (machine.root / "etc/systemd/system/kubelet.service").write_text(UNIT)
    machine.run("sh", "-c", "systemctl daemon-reload; systemctl restart kubelet")


def test_each_state_of_a_kubelet_is_told_apart(
    machines: list[LabMachine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = machines[1]
    run_kubelet(worker, FAILS)

    def waited_for(words: str) -> Verdict:
        deadline = time.monotonic() + 30
        # Now and then it is met while it runs.
        while words not in (found := judged(machines, tmp_path)).why:
            assert time.monotonic() < deadline, found
        return found

    # It was booted just now: so it may wait for others yet.
    found = waited_for("; its kubelet is not up yet")
    assert (found.remedy, "; it was started at 20" in found.why) == ("", True)
    monkeypatch.setattr("infra.site.steps.starting.STARTS_S", 0)
    found = waited_for("its kubelet ends again and again")
    assert found.why == 'worker is silent; its kubelet ends again and again: "command failed" err="unknown flag"'
    assert "journalctl -u kubelet" in found.remedy

    worker.run("systemctl", "stop", "kubelet")
    assert "its kubelet is inactive" in judged(machines, tmp_path).why

    # It runs; there is only no kubectl that could ask from there.
    run_kubelet(worker, "sleep 600")
    found = judged(machines, tmp_path)
    assert found.why.startswith("worker is silent, and asking the control plane at cluster:6443 from there fails: ")

    worker.cut_power()
    found = judged(machines, tmp_path)
    assert found.why.startswith(f"worker is silent, and cannot be asked itself: {worker.address}, port 22, ")
    assert found.remedy
