"""A real Prefect server that pods reach, the platform's worker beside it, and flows in pods of a real cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import httpx
from prefect_kubernetes.worker import KubernetesWorker
from servers import free_port
from stack_fixtures import ROOT
from troubles import IMAGE

from infra.kubernetes.pool_variables import COMMAND

POOL = "kubernetes"
FLOWS = '''
import time

from prefect import flow


@flow
def hold(seconds: float = 0, hoard: bool = False) -> None:
    """Works for some seconds, or until its memory is full."""
    kept = []
    end = time.monotonic() + seconds
    while hoard or time.monotonic() < end:
        if hoard:
            kept.append(bytearray(16 << 20))
        time.sleep(0.01)
'''


class Prefect:
    """A server on ``host`` on sqlite, and what a test asks it."""

    def __init__(self, folder: Path, host: str) -> None:
        self.url = f"http://{host}:{free_port()}/api"
        self._folder = folder
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLOPS_"))}
        self.environment = {**kept, "PREFECT_API_URL": self.url, "PREFECT_HOME": str(folder), "PYTHONUNBUFFERED": "1"}
        self._processes: list[subprocess.Popen[bytes]] = []
        self.http = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def start(self) -> None:
        host, port = self.url.removeprefix("http://").removesuffix("/api").split(":")
        without_url = {key: value for key, value in self.environment.items() if key != "PREFECT_API_URL"}
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", port]
        self._spawn("server", command, without_url)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.3)
        raise AssertionError(self.said("server"))

    def worker(self, namespace: str, kubeconfig: str) -> subprocess.Popen[bytes]:
        """Start the platform's worker, with the supervisor in it."""
        ready = self._folder / "ready"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "infra.kubernetes.worker", "--pool", POOL, "--namespace", namespace]
        variables = {**self.environment, "KUBECONFIG": kubeconfig, "PREFECT_WORKER_QUERY_SECONDS": "1"}
        process = self._spawn("worker", [*command, "--ready", str(ready)], variables)
        deadline = time.monotonic() + 180
        while not ready.exists():
            assert time.monotonic() < deadline, self.said("worker")
            time.sleep(0.2)
        return process

    def _spawn(self, name: str, command: list[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=variables, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._processes.append(process)
        return process

    def said(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")[-6000:]

    def deploy(self, namespace: str) -> None:
        """Make the pool, and a deployment of ``hold`` whose code a ConfigMap brings into the pods."""
        template = KubernetesWorker.get_default_base_job_template()
        spec = template["job_configuration"]["job_manifest"]["spec"]
        spec |= {"backoffLimit": 0, "activeDeadlineSeconds": "{{ deadline }}"}
        pod = spec["template"]["spec"]
        pod |= {
            "terminationGracePeriodSeconds": 30,
            "volumes": [{"name": "flows", "configMap": {"name": "flows"}}],
            "nodeSelector": "{{ node_selector }}",
            "affinity": "{{ affinity }}",
        }
        container = pod["containers"][0]
        container["volumeMounts"] = [{"name": "flows", "mountPath": "/flows"}]
        container["resources"] = "{{ resources }}"
        variables = template["variables"]["properties"]
        variables["namespace"]["default"] = namespace
        variables["command"]["default"] = COMMAND
        variables["image"]["default"] = IMAGE
        variables["image_pull_policy"]["default"] = "IfNotPresent"
        variables |= {
            "deadline": {"type": "integer"},
            "node_selector": {"type": "object"},
            "affinity": {"type": "object"},
            "resources": {"type": "object", "default": {"requests": {"cpu": "10m"}}},
        }
        self.ask("/work_pools/", {"name": POOL, "type": "kubernetes", "base_job_template": template})
        flow = self.ask("/flows/", {"name": "hold"})
        body = {
            "name": POOL, "flow_id": flow["id"], "work_pool_name": POOL, "entrypoint": "flows.py:hold",
            "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": "/flows"}}],
        }  # fmt: skip
        self.deployment = self.ask("/deployments/", body)["id"]

    def ask(self, path: str, body: Any = None) -> Any:
        answer = self._send("GET", path) if body is None else self._send("POST", path, body)
        assert answer.status_code < 300, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def pause(self, paused: bool) -> None:
        assert self._send("PATCH", f"/work_pools/{POOL}", {"is_paused": paused}).status_code == 204

    def _send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Ask again while another writer holds the server's sqlite database."""
        while True:
            answer = self.http.request(method, path, json=body)
            if answer.status_code != 503:
                return answer
            time.sleep(0.5)

    def run(self, job: dict[str, Any] | None = None, **parameters: Any) -> str:
        body = {"parameters": parameters, "job_variables": job or {}, "state": {"type": "SCHEDULED"}}
        return str(self.ask(f"/deployments/{self.deployment}/create_flow_run", body)["id"])

    def state(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(f"/flow_runs/{run}")["state"]
        return found

    def history(self, run: str) -> list[dict[str, Any]]:
        """Return all states of the run, the oldest first."""
        states: list[dict[str, Any]] = self.ask(f"/flow_run_states/?flow_run_id={run}")
        return sorted(states, key=lambda state: str(state["timestamp"]))

    def states(self, run: str) -> list[str]:
        """Return the names of all states of the run, the oldest first."""
        return [state["name"] for state in self.history(run)]

    def reaches(self, run: str, *names: str, seconds: float = 90) -> dict[str, Any]:
        """Wait until the run is in a state of one of these names; return the state."""
        deadline = time.monotonic() + seconds
        while (state := self.state(run))["name"] not in names:
            assert time.monotonic() < deadline, f"{names}, but {state}\n{self.states(run)}\n{self.said('worker')}"
            time.sleep(0.5)
        return state

    def diagnoses(self, run: str) -> list[str]:
        """The categories of the artifacts of a run, oldest first."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": ["diagnosis"]}}}
        found = sorted(self.ask("/artifacts/filter", wanted), key=lambda item: item["created"])
        return [item["metadata_"]["category"] for item in found]

    def told(self, run: str) -> list[str]:
        """The diagnoses in a run's log."""
        wanted = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return [line["message"] for line in self.ask("/logs/filter", wanted) if line["name"] == "mlops.diagnosis"]

    def close(self) -> None:
        self.http.close()
        for process in reversed(self._processes):
            for number, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
                if process.poll() is None:
                    os.killpg(process.pid, number)
                    try:
                        process.wait(patience)
                    except subprocess.TimeoutExpired:
                        continue
