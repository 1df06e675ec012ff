"""The worker on a real cluster, as a process of this machine: its runs are Jobs, whoever is away meanwhile."""

from __future__ import annotations

import os
import signal
import urllib.parse
from collections.abc import Iterator

import pytest
from proxy import Proxy

from benchmarks.kubernetes_lab import Lab, proxied

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1200)]

LIMIT_S = 400.0  # a busy cluster takes its time: what happens is tested here, not when
IMAGE = os.environ.get("MLOPS_TEST_IMAGE", "localhost/mlops-env:1")
FLOW = """
import os
import time

from prefect import flow, get_run_logger


@flow
def lab(seconds: float = 0, code: int = 0):
    get_run_logger().info("began as %s", os.environ["HOSTNAME"])
    time.sleep(seconds)
    if code:
        os._exit(code)
"""


@pytest.fixture(scope="module")
def proxy(namespace: str) -> Iterator[Proxy]:
    from configs.cluster import Cluster
    from infra.kubernetes.client import connect

    server = urllib.parse.urlsplit(str(connect(Cluster(namespace=namespace)).config.cluster.server))
    way = Proxy((server.hostname or "", server.port or 443))
    yield way
    way.cut()


@pytest.fixture(scope="module")
def lab(namespace: str, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    with Lab(folder, namespace, IMAGE, FLOW, resources={"requests": {"cpu": "100m", "memory": "256Mi"}}) as running:
        running.start_worker(proxied(folder, proxy.port))
        yield running


def began(lab: Lab, run: str) -> int:
    return lab.logs(run).count("began as")


def test_ends_are_told_as_they_are(lab: Lab) -> None:
    good, leaves = lab.run(), lab.run(code=3)
    assert lab.wait(good)["name"] == "Completed"
    assert lab.wait(leaves)["name"] == "Crashed"
    assert (len(lab.jobs(good)), len(lab.jobs(leaves))) == (1, 1)


def test_a_cancelled_run_leaves_its_pod(lab: Lab) -> None:
    run = lab.run(seconds=300)
    lab.until("the run", lambda: began(lab, run), LIMIT_S)
    lab.ask(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert lab.wait(run)["name"] == "Cancelled"


def test_a_run_whose_job_is_deleted_crashes_or_is_started_again(lab: Lab) -> None:
    from lightkube.resources.batch_v1 import Job
    from lightkube.types import CascadeType

    run = lab.run(seconds=30)
    lab.until("the run", lambda: began(lab, run), LIMIT_S)
    lab.client.delete(Job, lab.jobs(run)[0], namespace=lab.namespace, cascade=CascadeType.BACKGROUND, grace_period=0)
    end = lab.wait(run)["name"]
    lab.until("its lines, which come after its end", lambda: began(lab, run) == 1 + (end == "Completed"), 60)
    # Who is faster: the worker, which misses the Job, or the pod, which is told to stop and hands its run back?
    assert end in ("Crashed", "Completed")


def test_the_api_away_and_the_worker_killed_in_the_middle(lab: Lab, proxy: Proxy) -> None:
    running = lab.run(seconds=90)
    lab.until("the run", lambda: began(lab, running), LIMIT_S)
    proxy.cut()
    waits = lab.run()
    lab.until("a word in its log", lambda: "does not answer since" in lab.logs(waits), LIMIT_S)
    lab.end_worker(signal.SIGKILL)
    proxy.mend()
    lab.start_worker()
    assert lab.wait(running)["name"] == "Completed"
    assert lab.wait(waits)["name"] == "Completed"
    for run in (running, waits):
        lab.until("its lines, which come after its end", lambda run=run: began(lab, run), 60)
        assert (len(lab.jobs(run)), began(lab, run)) == (1, 1)
