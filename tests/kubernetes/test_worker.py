"""The worker's contract with a cluster: every run has one Job, none is lost, and each end is told."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from fake_api import FakeCluster, Fault
from fake_store import RefusedError
from stack_fixtures import until
from worker_process import Runs, Worker

pytestmark = pytest.mark.timeout(300)


def jobs_of(cluster: FakeCluster, run: str) -> list[str]:
    return [job["metadata"]["name"] for job in cluster.list("jobs", f"prefect.io/flow-run-id={run}")]


def pod_of(cluster: FakeCluster, run: str) -> str:
    def running() -> list[str]:
        pods = cluster.list("pods", f"prefect.io/flow-run-id={run}")
        return [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Running"]

    return str(until("its pod", running)[0])


def test_ends_are_told_as_they_are(cluster: FakeCluster, worker: Worker, runs: Runs) -> None:
    good, raises, leaves = runs.start(), runs.start(code=1), runs.start(code=3)
    assert "asked to fail" in runs.ends(raises, "Failed")["state"]["message"]
    runs.ends(good, "Completed")
    runs.ends(leaves, "Crashed")
    for run in (good, raises, leaves):
        assert len(jobs_of(cluster, run)) == 1
    assert runs.get(good)["infrastructure_pid"] == f"mlops:{jobs_of(cluster, good)[0]}"


def test_a_killed_pod_and_a_cancelled_run(cluster: FakeCluster, worker: Worker, runs: Runs) -> None:
    killed, cancelled = runs.start(seconds=60), runs.start(seconds=60)
    for run in (killed, cancelled):
        runs.reaches(run, "Running")
    pod = pod_of(cluster, killed)
    cluster.ask(lambda store, node: node.kill(pod, signal.SIGKILL))
    runs.cancel(cancelled)
    runs.ends(cancelled, "Cancelled", 30)
    runs.ends(killed, "Crashed", 90)


def test_the_api_away_at_submission(cluster: FakeCluster, worker: Worker, runs: Runs) -> None:
    worker.cluster_proxy.cut()
    waits, withdrawn = runs.start(), runs.start()
    for run in (waits, withdrawn):
        until("a word in its log", lambda run=run: "does not answer since" in runs.logs(run))
    runs.cancel(withdrawn)
    runs.ends(withdrawn, "Cancelled", 30)
    assert runs.get(waits)["state"]["type"] == "PENDING"
    worker.cluster_proxy.mend()
    runs.ends(waits, "Completed")
    assert "goes on after" in runs.logs(waits)
    assert (len(jobs_of(cluster, waits)), len(jobs_of(cluster, withdrawn))) == (1, 0)


def test_a_lost_answer_makes_no_second_job(cluster: FakeCluster, worker: Worker, runs: Runs) -> None:
    cluster.faults[:] = [
        Fault("POST", "/jobs$", RefusedError(500, "InternalError", "etcdserver: leader changed")),
        Fault("POST", "/jobs$", RefusedError(429, "TooManyRequests", "too many requests, please try again later")),
        Fault("POST", "/jobs$", RefusedError(409, "Conflict", "the object has been modified")),
        Fault("POST", "/jobs$", RefusedError(403, "Forbidden", "exceeded quota: runs, limited: count/jobs.batch=4")),
        Fault("POST", "/jobs$", lose=True),
    ]
    run = runs.start()
    runs.ends(run, "Completed")
    assert len(jobs_of(cluster, run)) == 1
    until("the worker's last lines, which it sends now and then", lambda: "adopted" in runs.logs(run))
    assert "the namespace's quota is used up" in runs.logs(run)


def test_a_run_that_began_while_its_answer_was_lost(cluster: FakeCluster, worker: Worker, runs: Runs) -> None:
    """Its pod is faster than the worker's next look, and the run can still be cancelled."""
    away = RefusedError(500, "InternalError", "etcdserver: leader changed")
    cluster.faults[:] = [Fault("POST", "/jobs$", lose=True), Fault("POST", "/jobs$", away, times=60)]
    try:
        run = runs.start(seconds=60)
        runs.reaches(run, "Running")
        pid = until("where it runs", lambda: runs.get(run)["infrastructure_pid"], 30)
    finally:
        cluster.faults.clear()
    assert [pid] == [f"mlops:{name}" for name in jobs_of(cluster, run)]
    runs.cancel(run)
    runs.ends(run, "Cancelled", 30)


def test_a_quota_on_pods_makes_runs_wait(cluster: FakeCluster, worker: Worker, runs: Runs) -> None:
    def allow(count: int | None) -> None:
        cluster.ask(lambda store, node: setattr(node, "pods_allowed", count))

    allow(0)
    try:
        run = runs.start()
        until("the refusal", lambda: any(run["reason"] == "FailedCreate" for run in cluster.list("events")))
        assert runs.get(run)["state"]["type"] == "PENDING"
    finally:
        allow(None)
    runs.ends(run, "Completed")


def test_the_worker_dies_in_the_middle(cluster: FakeCluster, worker: Worker, runs: Runs, tmp_path: Path) -> None:
    """One run goes on in its pod; of one, the Job was asked for; one was taken and nothing was asked for yet."""
    running = runs.start(seconds=12, marks=str(tmp_path))
    runs.reaches(running, "Running")
    worker.cluster_proxy.cut()
    taken = runs.start()
    until("the run to be taken", lambda: "does not answer since" in runs.logs(taken))
    worker.end(signal.SIGKILL)
    worker.server_proxy.cut()
    cluster.ask(lambda store, node: store.forget())
    until("the run that nobody watches", lambda: len(list(tmp_path.iterdir())) == 1)
    worker.server_proxy.mend()
    worker.start()
    worker.cluster_proxy.mend()
    runs.ends(running, "Completed")
    runs.ends(taken, "Completed", 90)
    assert len(list(tmp_path.iterdir())) == 1
    assert (len(jobs_of(cluster, running)), len(jobs_of(cluster, taken))) == (1, 1)
    for proxy in (worker.cluster_proxy, worker.server_proxy):
        proxy.cut()
    assert worker.end(signal.SIGTERM) == 0
