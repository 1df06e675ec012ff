"""A fake cluster, the session's Prefect server, and the worker as a process that can be killed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_api import FakeCluster
from prefect_kubernetes.worker import KubernetesWorker
from stack_fixtures import ROOT
from worker_process import FLOW, POOL, Runs, Worker

from infra.kubernetes.pool_variables import COMMAND
from infra.stack import rest
from infra.stack.state import Stack


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    folder = tmp_path_factory.mktemp("cluster")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    image = {"PATH": path, "HOME": str(folder), "PYTHONPATH": str(ROOT), "DO_NOT_TRACK": "true"}
    with FakeCluster(folder, image) as running:
        yield running


@pytest.fixture(scope="session")
def runs(running_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The pool, and a deployment whose code lies where every pod finds it."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "contract.py").write_text(FLOW)
    template = KubernetesWorker.get_default_base_job_template()
    template["job_configuration"]["job_manifest"]["spec"]["backoffLimit"] = 0
    template["variables"]["properties"]["namespace"]["default"] = "mlops"
    template["variables"]["properties"]["command"]["default"] = COMMAND
    template["variables"]["properties"]["image"] = {"type": "string", "default": "mlops"}
    pool = {"name": POOL, "type": "kubernetes", "base_job_template": template}
    rest.prefect(running_stack, "/work_pools/", pool, 30)
    flow = rest.prefect(running_stack, "/flows/", {"name": "contract"}, 30)
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}
    deployment = {
        "name": POOL, "flow_id": flow["id"], "work_pool_name": POOL, "entrypoint": "contract.py:contract",
        "pull_steps": [step],
    }  # fmt: skip
    return Runs(running_stack, rest.prefect(running_stack, "/deployments/", deployment, 30)["id"])


@pytest.fixture(scope="session")
def worker(
    cluster: FakeCluster, runs: Runs, running_stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    process = Worker(tmp_path_factory.mktemp("worker"), cluster, running_stack)
    try:
        process.start()
        yield process
    finally:
        process.close()
