"""Flow runs in pods of a real cluster, with a real Prefect server: what becomes of those that are in trouble."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest
from lightkube import Client
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import ConfigMap, Pod
from prefect_on_cluster import FLOWS, Prefect

from benchmarks.kubernetes_lab import own_address
from configs.cluster import Cluster
from infra.kubernetes.client import connect
from infra.kubernetes.manifests import RUN_LABEL

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1000)]


@pytest.fixture(scope="module")
def kubernetes(namespace: str) -> Iterator[Client]:
    client = connect(Cluster(namespace=namespace))
    client.create(ConfigMap(metadata=ObjectMeta(name="flows", namespace=namespace), data={"flows.py": FLOWS}))
    yield client
    client.close()


@pytest.fixture(scope="module")
def prefect(kubernetes: Client, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    server = Prefect(tmp_path_factory.mktemp("prefect"), own_address(str(kubernetes.config.cluster.server)))
    try:
        server.start()
        server.deploy(namespace)
        server.worker(namespace, os.environ["KUBECONFIG"])
        yield server
    finally:
        server.close()


def test_a_run_whose_image_does_not_exist_is_failed_with_the_reason(prefect: Prefect, kubernetes: Client) -> None:
    run = prefect.run({"image": "localhost/mlops:missing", "image_pull_policy": "Never"})
    state = prefect.reaches(run, "Failed", "Crashed", "Completed")
    assert state["name"] == "Failed"
    assert state["message"].startswith("Image not found: Image localhost/mlops:missing")
    assert prefect.diagnoses(run) == ["image not found"]
    assert len(prefect.told(run)) == 1
    _until(lambda: not _jobs(kubernetes, run))


def test_a_run_that_finds_no_node_stays_pending_and_says_why_once(prefect: Prefect) -> None:
    run = prefect.run({"resources": {"requests": {"cpu": "64"}}})
    state = prefect.reaches(run, "Unschedulable", seconds=90)
    assert state["type"] == "PENDING"
    assert "wants 64 CPU" in state["message"]
    time.sleep(20)
    assert prefect.diagnoses(run) == ["unschedulable"], "told once"
    assert len(prefect.told(run)) == 1
    prefect.ask(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    prefect.reaches(run, "Cancelled")


def test_a_run_out_of_memory_is_failed_and_not_retried(prefect: Prefect) -> None:
    run = prefect.run({"resources": {"limits": {"memory": "400Mi"}}}, hoard=True)
    state = prefect.reaches(run, "Failed", seconds=240)
    assert "400 MiB" in state["message"]
    assert prefect.diagnoses(run) == ["out of memory"]
    assert "AwaitingRetry" not in prefect.states(run)


def test_an_evicted_run_is_started_again_and_ends_well(prefect: Prefect, kubernetes: Client, namespace: str) -> None:
    run = prefect.run(seconds=25)
    prefect.reaches(run, "Running", seconds=400)
    pod = _pods(kubernetes, run)[0]
    kubernetes.create(Pod.Eviction(metadata=ObjectMeta(name=pod, namespace=namespace)), pod)
    prefect.reaches(run, "Completed", seconds=500)
    assert prefect.states(run).count("AwaitingRetry") == 1
    assert len(prefect.diagnoses(run)) == 1, prefect.told(run)
    assert prefect.diagnoses(run)[0] in ("evicted", "pod deleted")


def test_a_run_whose_pod_is_killed_without_a_word_is_started_again(
    prefect: Prefect, kubernetes: Client, namespace: str
) -> None:
    run = prefect.run(seconds=25)
    prefect.reaches(run, "Running", seconds=400)
    kubernetes.delete(Pod, _pods(kubernetes, run)[0], grace_period=0)
    prefect.reaches(run, "Completed", seconds=500)
    (again,) = [state["message"] for state in prefect.history(run) if state["name"] == "AwaitingRetry"]
    # The kubelet may have left it the second in which it asks for another start by itself, without a message.
    assert again is None or "Start 1 of 3" in again
    assert prefect.diagnoses(run) == ["pod deleted"]


def test_a_run_over_its_deadline_is_failed_although_its_pod_asks_for_another_start(prefect: Prefect) -> None:
    run = prefect.run({"deadline": 20}, seconds=300)
    state = prefect.reaches(run, "Failed", seconds=300)
    assert "deadline of 20 s" in state["message"]
    time.sleep(10)
    assert prefect.state(run)["name"] == "Failed", prefect.states(run)
    assert prefect.diagnoses(run) == ["deadline exceeded"]


def test_runs_of_a_paused_pool_are_told_so(prefect: Prefect) -> None:
    prefect.pause(True)
    try:
        run = prefect.run()
        _until(lambda: prefect.diagnoses(run) == ["work pool paused"])
        assert "prefect work-pool resume" in prefect.told(run)[0]
    finally:
        prefect.pause(False)
    prefect.reaches(run, "Completed", seconds=400)


def test_an_outage_of_the_api_is_told_and_no_node_is_taken_for_lost_after_it(prefect: Prefect) -> None:
    """Needs two commands that stop and start the API server, of which nothing else is lost."""
    stop, start = (os.environ.get(f"MLOPS_TEST_API_{name}", "") for name in ("STOP", "START"))
    if not (stop and start):
        pytest.skip("the API server may not be stopped: MLOPS_TEST_API_STOP, MLOPS_TEST_API_START")
    run = prefect.run(seconds=160)
    prefect.reaches(run, "Running", seconds=400)
    subprocess.run(["sh", "-c", stop], check=True, timeout=30)
    try:
        _until(lambda: prefect.diagnoses(run) == ["API server away"])
        time.sleep(60)  # nodes whose leases nobody could renew count as lost until they report again
    finally:
        subprocess.run(["sh", "-c", start], check=True, timeout=30)
    prefect.reaches(run, "Completed", seconds=300)
    assert prefect.diagnoses(run) == ["API server away"]
    assert prefect.states(run).count("Running") == 1


def _jobs(client: Client, run: str) -> list[str]:
    return [str(job.metadata and job.metadata.name) for job in client.list(Job, labels={RUN_LABEL: run})]


def _pods(client: Client, run: str) -> list[str]:
    return [str(pod.metadata and pod.metadata.name) for pod in client.list(Pod, labels={RUN_LABEL: run})]


def _until(found: object, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not found():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.5)
