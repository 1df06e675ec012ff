"""A Prefect server and our worker on this machine, running flows in pods of the cluster of KUBECONFIG.

Pods reach the server at this machine's address; their code comes from a ConfigMap, everything else from the image.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.cluster import Cluster
from configs.problems import Problem, UserError
from infra.kubernetes.pool_variables import COMMAND
from infra.stack.environment import PREFECT_SERVER, QUIET

if TYPE_CHECKING:
    from lightkube import Client

ROOT = Path(__file__).resolve().parents[1]
POOL = "lab"
CODE = "/lab"
ENDS = ("Completed", "Failed", "Crashed", "Cancelled")


class Lab:
    """One server with its pool; close it. The namespace is the caller's.

    Args:
        folder: state of the server and the worker, and their logs.
        image: of the pods; has this project's environment and code, the latter on its PYTHONPATH.
        flow: source of a module whose flow is ``lab``.
        database: another database than sqlite in the folder, as Prefect writes its address.
        resources: of the pods, as Kubernetes writes them.
    """

    def __init__(
        self,
        folder: Path,
        namespace: str,
        image: str,
        flow: str,
        *,
        database: str = "",
        resources: Mapping[str, Any] | None = None,
    ) -> None:
        from infra.kubernetes.client import connect

        self.folder, self.namespace, self.image = folder, namespace, image
        self.client: Client = connect(Cluster(namespace=namespace))
        self.host = own_address(str(self.client.config.cluster.server))
        with socket.socket() as probe:
            probe.bind((self.host, 0))
            self.port = probe.getsockname()[1]
        self.api = f"http://{self.host}:{self.port}/api"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLOPS_"))}
        self.environment = {
            **kept,
            "PREFECT_API_URL": self.api,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_API_HOST": self.host,
            "PREFECT_SERVER_API_PORT": str(self.port),
            **QUIET,
            **PREFECT_SERVER,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            **({"PREFECT_API_DATABASE_CONNECTION_URL": database} if database else {}),
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._flow, self._resources = flow, dict(resources or {})
        self.deployment = ""

    def __enter__(self) -> Lab:
        try:
            self._start("server", "-m", "infra.stack.prefect_server")
            self.until("the server", lambda: self._answers(), 180)
            self._provision()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def start_worker(self, kubeconfig: Path | None = None) -> None:
        """Returns when it looks for runs."""
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        if kubeconfig:
            self.environment["KUBECONFIG"] = str(kubeconfig)
        arguments = ("--pool", POOL, "--namespace", self.namespace, "--ready", str(ready))
        self._start("worker", "-m", "infra.kubernetes.worker", *arguments)
        self.until("the worker", ready.exists, 120)

    def end_worker(self, number: signal.Signals = signal.SIGTERM) -> None:
        process = self._processes.pop("worker")
        process.send_signal(number)
        process.wait(60)

    def close(self) -> None:
        for name in ("worker", "server"):
            if process := self._processes.pop(name, None):
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                process.kill()
                process.wait()

    def run(self, **parameters: object) -> str:
        """Start a run; its id."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return str(self.ask(f"/deployments/{self.deployment}/create_flow_run", body)["id"])

    def get(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(f"/flow_runs/{run}")
        return found

    def state(self, run: str) -> str:
        return str(self.get(run)["state"]["name"])

    def wait(self, run: str, seconds: float = 400) -> dict[str, Any]:
        """The state of a run that has ended."""
        self.until(f"the end of run {run}", lambda: self.state(run) in ENDS, seconds)
        state: dict[str, Any] = self.get(run)["state"]
        return state

    def logs(self, run: str) -> str:
        wanted = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return "\n".join(line["message"] for line in self.ask("/logs/filter", wanted))

    def jobs(self, run: str) -> list[str]:
        from lightkube.resources.batch_v1 import Job

        found = self.client.list(Job, namespace=self.namespace, labels={"prefect.io/flow-run-id": run})
        return [str(job.metadata.name) for job in found if job.metadata]

    def patch(self, path: str, body: object) -> None:
        """Change something of Prefect's."""
        self.ask(path, body, "PATCH")

    def ask(self, path: str, body: object = None, method: str | None = None) -> Any:
        """Prefect's API: GET without ``body``, else POST; asked again while the server is busy."""
        data = None if body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.api}{path}", data, kind, method=method)
        for _ in range(60):
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return json.loads(response.read() or "null")
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise RuntimeError(f"{path}: {error.code} {error.read().decode()}") from None
            except TimeoutError:
                pass
            time.sleep(1)
        raise TimeoutError(f"{path}: no answer")

    def until(self, what: str, found: Callable[[], Any], seconds: float) -> Any:
        """Wait for ``found``; raise with the last lines of both logs when it does not come."""
        deadline = time.monotonic() + seconds
        while not (value := found()):
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = [path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("*.log"))]
                raise TimeoutError(f"{what} did not come; ended: {ended}\n" + "\n".join(logs))
            time.sleep(0.1)
        return value

    def _start(self, name: str, *arguments: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, *arguments]
            self._processes[name] = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.api}/health", timeout=2) as response:
            return bool(response.status == 200)
        return False

    def _provision(self) -> None:
        from lightkube.models.meta_v1 import ObjectMeta
        from lightkube.resources.core_v1 import ConfigMap

        name = f"code-{uuid.uuid4().hex[:8]}"
        metadata = ObjectMeta(name=name, namespace=self.namespace)
        self.client.create(ConfigMap(metadata=metadata, data={"lab.py": self._flow}))
        self.ask("/work_pools/", {"name": POOL, "type": "kubernetes", "base_job_template": self._template(name)})
        flow = self.ask("/flows/", {"name": "lab"})
        step = {"prefect.deployments.steps.set_working_directory": {"directory": CODE}}
        deployment = {"name": POOL, "flow_id": flow["id"], "work_pool_name": POOL, "entrypoint": "lab.py:lab"}
        self.deployment = self.ask("/deployments/", {**deployment, "pull_steps": [step]})["id"]

    def _template(self, code: str) -> dict[str, Any]:
        from prefect_kubernetes.worker import KubernetesWorker

        template: dict[str, Any] = KubernetesWorker.get_default_base_job_template()
        job = template["job_configuration"]["job_manifest"]["spec"]
        job["backoffLimit"] = 0
        pod = job["template"]["spec"]
        pod["volumes"] = [{"name": "code", "configMap": {"name": code}}]
        pod["containers"][0]["volumeMounts"] = [{"name": "code", "mountPath": CODE}]
        pod["containers"][0]["resources"] = self._resources
        defaults = {
            "namespace": self.namespace,
            "image": self.image,
            "image_pull_policy": "IfNotPresent",
            "command": COMMAND,
        }
        for key, value in defaults.items():
            template["variables"]["properties"][key] = {"type": "string", "default": value}
        return template


def own_address(server: str) -> str:
    """This machine's address as the cluster sees it: that from which it asks the API server."""
    target = urllib.parse.urlsplit(server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((target.hostname or "", target.port or 443))
        return str(probe.getsockname()[0])


def proxied(folder: Path, port: int) -> Path:
    """A kubeconfig that reaches the current cluster through a proxy on the loopback; the certificate stays right."""
    import yaml

    given = os.environ["KUBECONFIG"].split(os.pathsep)[0]
    values = yaml.safe_load(Path(given).read_text(encoding="utf-8"))
    for entry in values["clusters"]:
        cluster = entry["cluster"]
        cluster["tls-server-name"] = urllib.parse.urlsplit(cluster["server"]).hostname
        cluster["server"] = f"https://127.0.0.1:{port}"
        _inline(cluster, Path(given).parent, "certificate-authority")
    for entry in values["users"]:
        for key in ("client-certificate", "client-key"):
            _inline(entry["user"], Path(given).parent, key)
    path = folder / f"kubeconfig-{port}"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def _inline(section: dict[str, Any], folder: Path, key: str) -> None:
    """Paths in a kubeconfig are relative to it: the content goes along instead."""
    if named := section.pop(key, None):
        section[f"{key}-data"] = base64.b64encode((folder / named).read_bytes()).decode()


def at(timestamp: str) -> float:
    """Seconds since the epoch of a time of Prefect's API."""
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def need_cluster() -> None:
    """See that a cluster is named; none is taken unasked.

    Raises:
        UserError: none is.
    """
    if not os.environ.get("KUBECONFIG"):
        raise UserError(Problem("KUBECONFIG", "is not set", "name a cluster's kubeconfig: this is measured on one"))


class Namespace:
    """A namespace of its own for a benchmark, deleted with all that is in it."""

    def __enter__(self) -> str:
        from lightkube.models.meta_v1 import ObjectMeta
        from lightkube.resources.core_v1 import Namespace as Kind

        from infra.kubernetes.client import connect

        need_cluster()
        self._name = f"bench-{uuid.uuid4().hex[:8]}"
        self._client = connect(Cluster(namespace=self._name))
        self._client.create(Kind(metadata=ObjectMeta(name=self._name)))
        return self._name

    def __exit__(self, *problem: object) -> None:
        from lightkube.resources.core_v1 import Namespace as Kind
        from lightkube.types import CascadeType

        self._client.delete(Kind, self._name, cascade=CascadeType.BACKGROUND)
