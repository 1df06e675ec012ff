"""The worker as a process that can be killed, what a test asks the Prefect server for, and the flow that runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from fake_api import FakeCluster
from proxy import Proxy
from stack_fixtures import ROOT, until

from infra.stack import rest
from infra.stack.state import Stack

POOL = "contract"
FLOW = '''
import os
import sys
import time
from pathlib import Path

from prefect import flow


@flow(name="contract")
def contract(seconds: float = 0, code: int = 0, marks: str = "") -> None:
    """Notes that it began, takes its time, and ends as asked: 1 raises, any other code leaves the process."""
    if marks:
        Path(marks, str(os.getpid())).touch()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)
    if code == 1:
        raise ValueError("asked to fail")
    if code:
        print("leaving", code, flush=True)
        os._exit(code)
'''


class Worker:
    """`python -m infra.kubernetes.worker` against a cluster and a server; each behind a proxy."""

    def __init__(self, folder: Path, cluster: FakeCluster, stack: Stack) -> None:
        self.folder = folder
        self.cluster_proxy = Proxy(("127.0.0.1", cluster.port))
        self.server_proxy = Proxy(("127.0.0.1", stack.prefect_port))
        self.log = folder / "worker.log"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLOPS_"))}
        self._environment = {
            **kept,
            "PREFECT_API_URL": f"http://127.0.0.1:{self.server_proxy.port}/api",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "0.5",
            "KUBECONFIG": str(cluster.kubeconfig(self.cluster_proxy.port)),
            "PYTHONUNBUFFERED": "1",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "infra.kubernetes.worker", "--pool", POOL, "--ready", str(ready)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)
        try:
            until("the worker", ready.exists, 60)
        except AssertionError:
            raise AssertionError(self.said()) from None

    def end(self, number: signal.Signals) -> int:
        assert self._process
        self._process.send_signal(number)
        return self._process.wait(30)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def close(self) -> None:
        if self._process and self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.end(signal.SIGTERM)
            self._process.kill()
            self._process.wait(10)
        for proxy in (self.cluster_proxy, self.server_proxy):
            proxy.cut()


class Runs:
    """What a test asks the Prefect server for."""

    def __init__(self, stack: Stack, deployment: str) -> None:
        self.stack = stack
        self._deployment = deployment

    def start(self, **parameters: object) -> str:
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        run: str = rest.prefect(self.stack, f"/deployments/{self._deployment}/create_flow_run", body, 30)["id"]
        return run

    def get(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = rest.prefect(self.stack, f"/flow_runs/{run}", timeout=30)
        return found

    def state(self, run: str) -> str:
        return str(self.get(run)["state"]["name"])

    def ends(self, run: str, wanted: str, seconds: float = 60) -> dict[str, Any]:
        ends = ("Completed", "Failed", "Crashed", "Cancelled")
        until(f"the end of the run, which is {wanted}", lambda: self.state(run) in ends, seconds)
        found = self.get(run)
        assert found["state"]["name"] == wanted, found["state"]
        return found

    def reaches(self, run: str, wanted: str, seconds: float = 60) -> None:
        until(f"{wanted}, after {self.state(run)}", lambda: self.state(run) == wanted, seconds)

    def cancel(self, run: str) -> None:
        body = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        rest.prefect(self.stack, f"/flow_runs/{run}/set_state", body, 30)

    def logs(self, run: str) -> str:
        wanted = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return "\n".join(line["message"] for line in rest.prefect(self.stack, "/logs/filter", wanted, 30))
