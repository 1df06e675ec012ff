"""The supervisor in the worker's process, with a real Prefect server: what it tells, fails and starts again."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from fake_api import FakeCluster
from lightkube import Client
from stack_fixtures import until
from worker_process import Runs, Worker

from configs.cluster import Cluster
from infra.kubernetes.client import connect
from infra.kubernetes.decisions import Action, decide, decide_on_past, delay_s
from infra.kubernetes.diagnosis.record import Category, Diagnosis
from infra.kubernetes.leader import Leader
from infra.stack import rest

pytestmark = pytest.mark.timeout(300)


def artifacts(runs: Runs, run: str) -> list[dict[str, Any]]:
    wanted = {"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": ["diagnosis"]}}}
    found: list[dict[str, Any]] = rest.prefect(runs.stack, "/artifacts/filter", wanted, 30)
    return found


def test_a_run_whose_code_leaves_is_failed_with_its_exit_code_and_last_lines(
    cluster: FakeCluster, worker: Worker, runs: Runs
) -> None:
    run = runs.start(code=3)
    runs.reaches(run, "Failed", 120)
    assert "exit code 3" in runs.get(run)["state"]["message"]
    (artifact,) = artifacts(runs, run)
    assert artifact["metadata_"]["category"] == "the code failed"
    assert "leaving 3" in artifact["data"]
    assert "the code failed: The run's code ended with exit code 3" in runs.logs(run)


def test_the_api_away_is_told_and_the_run_goes_on(
    cluster: FakeCluster, worker: Worker, runs: Runs, tmp_path: Path
) -> None:
    run = runs.start(seconds=40, marks=str(tmp_path))
    until("the code", lambda: list(tmp_path.iterdir()))
    worker.cluster_proxy.cut()
    try:
        found = until("the record", lambda: artifacts(runs, run), 90)
        assert [item["metadata_"]["category"] for item in found] == ["API server away"]
        assert "its pod runs on" in found[0]["data"]
    finally:
        worker.cluster_proxy.mend()
    runs.reaches(run, "Completed", 120)
    assert len(artifacts(runs, run)) == 1, "told once"


def test_a_gang_whose_run_is_unknown_is_taken_away(cluster: FakeCluster, worker: Worker) -> None:
    labels = {"mlops/gang": "left", "mlops/flow-run": str(uuid4())}
    service = {"metadata": {"name": "left", "namespace": "mlops", "labels": labels}, "spec": {"clusterIP": "None"}}
    cluster.ask(lambda store, node: store.create("services", "mlops", service))
    until("its end", lambda: not cluster.list("services", "mlops/gang=left"))


@pytest.fixture
def client(cluster: FakeCluster) -> Client:
    return connect(Cluster(kubeconfig=cluster.kubeconfig(cluster.port)))


def test_one_of_two_leads_until_it_gives_up_or_falls_silent(
    cluster: FakeCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Leader(client, "elsewhere"), Leader(client, "elsewhere")
    assert (first.leads(), second.leads(), first.leads()) == (True, False, True)
    first.give_up()
    assert second.leads()
    assert not first.leads()
    monkeypatch.setattr("infra.kubernetes.leader.STALE", timedelta(0))
    assert first.leads(), "the other has not renewed for too long"


def test_while_the_api_is_away_the_leader_stays_the_leader(
    cluster: FakeCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise httpx2.ConnectError("refused")

    leader, other = Leader(client, "somewhere"), Leader(client, "somewhere")
    assert leader.leads()
    monkeypatch.setattr(client, "get", away)
    assert leader.leads()
    assert not other.leads()


def trouble(category: Category, *, passing: bool) -> Diagnosis:
    return Diagnosis(category, "It is so.", passing=passing)


LONG, SHORT = timedelta(minutes=2), timedelta(seconds=10)


@pytest.mark.parametrize(
    ("category", "passing", "kind", "lasted", "starts", "action"),
    [
        (Category.NODE_LOST, True, "CRASHED", SHORT, 0, Action.RETRY),
        (Category.NODE_LOST, True, "CRASHED", SHORT, 3, Action.FAIL),
        (Category.NODE_LOST, True, "RUNNING", LONG, 0, Action.NOTHING),
        (Category.OUT_OF_MEMORY, False, "CRASHED", SHORT, 0, Action.FAIL),
        (Category.USER_CODE, False, "CRASHED", SHORT, 0, Action.FAIL),
        (Category.USER_CODE, False, "FAILED", SHORT, 0, Action.NOTHING),
        (Category.UNKNOWN, False, "CRASHED", LONG, 0, Action.NOTHING),
        (Category.IMAGE_NOT_FOUND, False, "PENDING", SHORT, 0, Action.NOTHING),
        (Category.IMAGE_NOT_FOUND, False, "PENDING", LONG, 0, Action.FAIL),
        (Category.UNSCHEDULABLE, True, "PENDING", LONG, 0, Action.SHOW),
        (Category.QUOTA, True, "PENDING", LONG, 0, Action.SHOW),
        (Category.POOL_PAUSED, True, "SCHEDULED", LONG, 0, Action.NOTHING),
    ],
)
def test_what_is_done(
    category: Category, passing: bool, kind: str, lasted: timedelta, starts: int, action: Action
) -> None:
    assert decide(trouble(category, passing=passing), kind, lasted, starts, retries=3) is action


def test_a_run_that_goes_on_is_stopped_when_its_time_was_up_or_it_was_started_too_often() -> None:
    assert decide_on_past(trouble(Category.DEADLINE, passing=False), 1, retries=3) is Action.FAIL
    assert decide_on_past(trouble(Category.EVICTED, passing=True), 3, retries=3) is Action.NOTHING
    assert decide_on_past(trouble(Category.EVICTED, passing=True), 4, retries=3) is Action.FAIL
    assert [delay_s(starts) for starts in (0, 1, 9)] == [5, 10, 120]
