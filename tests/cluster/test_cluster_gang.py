"""Distributed trainings on a real cluster: equal results, lost pods, broken scripts, too little room, cancel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_gangs import NEEDED, ROOT, Gangs, Seen, StopError, until

from configs.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def client() -> Iterator[object]:
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.core_v1 import Namespace

    from infra.kubernetes.client import connect

    if lacking := [name for name in NEEDED if name not in os.environ]:
        pytest.skip(f"not set: {', '.join(lacking)} (see tests/cluster/cluster_gangs.py)")
    name = f"mlops-gangs-{uuid.uuid4().hex[:8]}"
    client = connect(Cluster(namespace=name))
    client.create(Namespace(metadata=ObjectMeta(name=name)))
    yield client
    client.delete(Namespace, name)


@pytest.fixture(scope="module")
def gangs(client, tmp_path_factory: pytest.TempPathFactory) -> Gangs:
    return Gangs(client, tmp_path_factory.mktemp("home"))


def test_one_two_and_three_workers_over_two_nodes_learn_the_same(gangs: Gangs) -> None:
    weights = []
    for workers in (1, 2, 3):
        gang, seen = gangs.toy("--steps", "5", least=workers, most=workers), Seen()
        outcome = gangs.run(gang, seen)
        assert outcome.failure is None
        assert seen.epochs == [1, 2, 3, 4, 5]
        assert outcome.restarts == 0
        weights.append(json.loads(gangs.output(gang, "weights.json")))
        assert json.loads(gangs.output(gang, "metrics.json"))["size"] == workers
        if workers == 2:
            nodes = {note.rpartition(" ")[2] for note in seen.notes if " runs on " in note}
            assert len(nodes) == 2, "the workers are spread"
        gangs.launcher().remove(gang)
        assert gangs.left(gang) == []
    for others in weights[1:]:
        assert others == pytest.approx(weights[0], abs=1e-12)


@pytest.mark.parametrize("index", [1, 0], ids=["worker 1", "worker 0, host of the rendezvous"])
def test_a_pod_that_is_lost_is_replaced_and_the_training_goes_on(gangs: Gangs, index: int, tmp_path: Path) -> None:
    gang, seen = gangs.toy("--steps", "25", "--pause", "0.5"), Seen()
    seen.do(after=6, then=lambda: gangs.kill(gang, index))
    outcome = gangs.run(gang, seen)
    assert outcome.failure is None
    assert f"worker {index} is replaced by another pod" in seen.notes
    assert seen.epochs == sorted(set(seen.epochs)), "no step is trained or told twice"
    assert seen.epochs[-1] == 25
    begun = {line for line in seen.lines if "begins at step" in line}
    assert any("begins at step 0 " not in line for line in begun), begun
    launcher = gangs.launcher()
    launcher.collect(gang, tmp_path)
    logs = sorted(path.name for path in (tmp_path / "logs").glob("*.log"))
    assert len(logs) == 3, f"the log of the lost pod is kept, too: {logs}"
    assert all("begins at step" in (tmp_path / "logs" / name).read_text() for name in logs)
    assert (tmp_path / "output" / "weights.json").exists()
    launcher.remove(gang)
    assert gangs.left(gang) == []


def test_a_rank_that_fails_is_named_with_its_last_words(gangs: Gangs) -> None:
    gang, seen = gangs.toy("--fail-rank", "1", max_restarts=1), Seen()
    outcome = gangs.run(gang, seen)
    assert outcome.failure is not None
    said = str(outcome.failure)
    assert "rank 1" in said
    assert "ended with exit code 3" in said
    assert "the toy is broken here" in said
    assert not any(item.startswith("Service") for item in gangs.left(gang))
    gangs.launcher().remove(gang)


def test_too_few_workers_fail_with_the_reason(gangs: Gangs) -> None:
    gang, seen = gangs.toy(cpu=64, below_least_s=10), Seen()
    outcome = gangs.run(gang, seen)
    assert "had 0 of at least 2 workers for 10 s" in str(outcome.failure)
    assert "Insufficient cpu" in str(outcome.failure)
    gangs.launcher().remove(gang)
    assert gangs.left(gang) == []


def test_an_image_that_is_not_there_fails_with_its_name(gangs: Gangs) -> None:
    gang, seen = gangs.toy(), Seen()
    launcher = gangs.launcher(image="registry.example/none:1")
    launcher.launch(gang)
    outcome = launcher.follow(gang, seen.watch())
    assert "registry.example/none:1" in str(outcome.failure)
    launcher.remove(gang)


def test_cancel_removes_everything(gangs: Gangs) -> None:
    gang, seen = gangs.toy("--steps", "500", "--pause", "0.5"), Seen()
    seen.do(after=2, then=lambda: setattr(seen, "stop", True))
    with pytest.raises(StopError):
        gangs.run(gang, seen)
    assert len(gangs.left(gang)) >= 4
    launcher = gangs.launcher()
    launcher.remove(gang)
    assert gangs.left(gang) == []
    assert (gangs.share / gang.checkpoints / "toy.json").exists(), "a later run goes on from there"
    launcher.clear(gang)
    assert not (gangs.share / gang.checkpoints).exists()


CONTROLLER = """
import sys
from pathlib import Path, PurePosixPath
sys.path.insert(0, "tests/cluster")
from cluster_gangs import Gangs, Seen
from configs.cluster import Cluster
from infra.kubernetes.client import connect
gangs = Gangs(connect(Cluster(namespace=sys.argv[1])), Path(sys.argv[2]))
gang = gangs.toy("--steps", "40", "--pause", "0.5", name=sys.argv[3], flow_run_id=sys.argv[3],
                 checkpoints=PurePosixPath("checkpoints") / sys.argv[3])
seen = Seen()
outcome = gangs.run(gang, seen)
print("epochs", seen.epochs)
print("outcome", outcome)
"""


def test_a_controller_that_is_killed_and_started_again_adopts_its_gang(gangs: Gangs, tmp_path: Path) -> None:
    name = f"adopted-{uuid.uuid4().hex[:8]}"
    command = [sys.executable, "-c", CONTROLLER, str(gangs.client.namespace), str(tmp_path), name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    events = gangs.share / "gangs" / name / "events.jsonl"
    with subprocess.Popen(command, cwd=ROOT, env=environment) as first:
        until(lambda: events.exists() and events.read_text().count("\n") > 3)
        first.kill()
    gang = gangs.toy(name=name)
    before = [item for item in gangs.left(gang) if item.startswith("Pod")]
    assert len(before) == 2, "the training goes on without its controller"
    second = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr
    assert f"epochs {[*range(1, 41)]}" in second.stdout, "all events from the first on"
    assert "Outcome(failure=None, restarts=0)" in second.stdout
    assert sorted(before) == sorted(item for item in gangs.left(gang) if item.startswith("Pod")), "nothing was replaced"
    gangs.launcher().remove(gang)
    assert gangs.left(gang) == []


def test_it_goes_on_with_fewer_workers_while_one_cannot_be_replaced(gangs: Gangs) -> None:
    gang, seen = gangs.toy("--steps", "30", "--pause", "0.5", least=1, most=2), Seen()

    def lose() -> None:
        gangs.forbid_pods()
        gangs.kill(gang, 1)

    seen.do(after=6, then=lose)
    try:
        outcome = gangs.run(gang, seen)
    finally:
        gangs.allow_pods()
    assert outcome.failure is None
    assert seen.epochs[-1] == 30
    assert any("as 0 of 1" in line for line in seen.lines)
    assert json.loads(gangs.output(gang, "metrics.json"))["size"] == 1
    gangs.launcher().remove(gang)
    assert gangs.left(gang) == []
