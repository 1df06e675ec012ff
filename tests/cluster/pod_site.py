"""A small checkout whose runs are pods: servers, share and worker on this machine, its code in an image.

``MLOPS_TEST_BASE`` names an image that podman has, with the locked environment at /opt/mlops/.venv and the user mlops,
``MLOPS_TEST_REGISTRY`` a registry that podman pushes to and nodes pull from, ``MLOPS_TEST_ADDRESS`` an address of this
machine that pods reach.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import httpx
from checkouts import ROOT, check, environment, git, small_checkout
from lightkube import Client
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Pod

from configs.cluster import Cluster, Resources
from configs.secret import PasswordReference
from configs.storage import SmbStorage
from infra.kubernetes.apply import apply
from infra.kubernetes.environment import environment_map
from infra.kubernetes.manifests import CREDENTIALS, RUN_ACCOUNT, SHARE, manifest
from infra.kubernetes.platform.wanted import Wanted
from infra.kubernetes.pool import base_job_template
from infra.repository.git import code_version
from infra.stack.credentials import USER, load_credentials
from infra.stack.state import Stack, load_stack
from smb_servers.smbd import Smbd

DOCKERFILE = """\
FROM {base}
USER root
COPY --chown=mlops:mlops . /opt/mlops/
RUN install -d -o mlops -g mlops /opt/mlops/.mlops && chown mlops:mlops /opt/mlops \
 && cp -r packages/dvc-smb/dvc_smb packages/dvc-smb/dvc_smb.pth .venv/lib/python3.*/site-packages/
ENV PATH=/opt/mlops/.venv/bin:/usr/local/bin:/usr/bin:/bin
USER mlops
"""
REGISTER = """\
import asyncio, json, sys
from prefect.client.orchestration import get_client
from infra.kubernetes.deployments import ensure_pool_and_deployments
async def main():
    async with get_client() as client:
        print(await ensure_pool_and_deployments(client, json.load(sys.stdin), sys.argv[1], None))
asyncio.run(main())
"""


class PodSite:
    """One site. ``folder`` holds all that is made on this machine; ``namespace`` is there already."""

    def __init__(self, folder: Path, namespace: str, client: Client) -> None:
        self.folder, self.namespace, self.client = folder, namespace, client
        self.address = os.environ["MLOPS_TEST_ADDRESS"]
        self.root = folder / "checkout"
        self.cache = PurePosixPath(f"/var/lib/mlops-{namespace}/cache")
        self.image = ""
        self._worker: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        return self.root / ".mlops"

    @property
    def stack(self) -> Stack:
        stack = load_stack(self.home)
        assert stack is not None
        return stack

    def variables(self) -> dict[str, str]:
        """Return what a client of the servers needs."""
        credentials = load_credentials(self.home)
        return {
            "PREFECT_API_URL": self.stack.prefect_api_url,
            "PREFECT_API_AUTH_STRING": credentials.prefect_auth_string,
            "MLFLOW_TRACKING_URI": self.stack.mlflow_url,
            "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": credentials.mlflow_password,
        }

    def make(self, smbd: Smbd, *, epochs: int = 12, train: int = 160) -> None:
        """Make the checkout and its image, start servers and worker, and fill the namespace and the share."""
        small_checkout(self.root, train=train)
        recipe = self.root / "configs" / "forklift.yaml"
        recipe.write_text(re.sub(r"(?m)^(  epochs:).*$", rf"\1 {epochs}", recipe.read_text()))
        git(self.root, "commit", "--quiet", "--all", "-m", "epochs")
        self.image = self._build()
        url = f"smb://{smbd.user}@{self.address}:{smbd.port}/sambashare/dvc"
        check(
            *(self.root, sys.executable, "-m", "cli", "up", "--host", self.address, "--share", url),
            MLOPS_SHARE_PASSWORD=smbd.password,
            PYTHONPATH=self.path,
        )
        password = str(self.home / "secrets" / "share-password")
        self.dvc("remote", "modify", "--local", "share", "url", url, where=self.root)
        self.dvc("push", "data.dvc", where=self.root, DVC_SMB_PASSWORD_FILE=password)
        share = SmbStorage(url=url, password=PasswordReference(file=Path(password)))
        resources = Resources(cpu="400m", memory="1500Mi", shm="64Mi", priority_class="system-run", ttl_s=600)
        cluster = Cluster(namespace=self.namespace, cache=self.cache, training=resources)
        wanted = Wanted(cluster, self.image, share=share)
        apply(self.client, [*self._objects(wanted, smbd.password)])
        template = base_job_template(wanted)
        del template["variables"]["properties"]["priority_class"]["default"]  # the class is of the whole cluster
        subprocess.run(
            [sys.executable, "-c", REGISTER, self.image],
            input=json.dumps(template),
            text=True,
            check=True,
            cwd=self.root,
            env=environment(**self.variables(), PYTHONPATH=self.path, PREFECT_CLI_PROMPT="false"),
            timeout=120,
        )
        self.start_worker()

    @property
    def path(self) -> str:
        return os.pathsep.join([str(ROOT), str(ROOT / "packages" / "dvc-smb")])

    def start_worker(self) -> None:
        with (self.folder / "worker.log").open("ab") as log:
            self._worker = subprocess.Popen(
                [sys.executable, "-m", "infra.kubernetes.worker", "--namespace", self.namespace],
                cwd=self.root,
                env=environment(
                    **self.variables(),
                    PYTHONPATH=self.path,
                    PREFECT_HOME=str(self.folder / "worker"),
                    PREFECT_WORKER_QUERY_SECONDS="1",
                    PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_NAME=CREDENTIALS,
                    PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_KEY="prefect-auth",
                ),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def close(self) -> None:
        if self._worker is not None:
            self._worker.terminate()
            try:
                self._worker.wait(40)
            except subprocess.TimeoutExpired:
                self._worker.kill()
                self._worker.wait()
        subprocess.run(
            [sys.executable, "-m", "cli", "down"], cwd=self.root, env=environment(PYTHONPATH=self.path), check=False
        )

    def dvc(self, *arguments: str, where: Path, **variables: str) -> str:
        return check(where, "dvc", *arguments, PYTHONPATH=self.path, **variables)

    def ask(self, path: str, body: object = None, method: str = "") -> Any:
        """Ask the Prefect server: POST with a body, GET without, unless a method is named."""
        variables = self.variables()
        user, _, password = variables["PREFECT_API_AUTH_STRING"].partition(":")
        url = f"{variables['PREFECT_API_URL']}/{path}"
        verb = method or ("GET" if body is None else "POST")
        with httpx.Client(auth=(user, password), timeout=60) as client:
            while (answer := client.request(verb, url, json=body)).status_code == 503:
                time.sleep(0.5)  # another writer holds the server's sqlite database
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def run(self, deployment: str = "train-forklift/kubernetes", **parameters: Any) -> str:
        """Start a run and return its id."""
        found = self.ask(f"deployments/name/{deployment}")
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return str(self.ask(f"deployments/{found['id']}/create_flow_run", body)["id"])

    def place(self, node: str, deployment: str = "train-forklift/kubernetes") -> None:
        """Have all pods that are made from now on on this node; a run that is started again goes there, too."""
        found = self.ask(f"deployments/name/{deployment}")
        variables = found["job_variables"] | {"node_selector": {"kubernetes.io/hostname": node}}
        self.ask(f"deployments/{found['id']}", {"job_variables": variables}, "PATCH")

    def evict(self, run: str) -> str:
        """Evict the run's pod, as draining its node does, and return its name."""
        from lightkube.models.meta_v1 import ObjectMeta

        (name,) = (pod.metadata.name for pod in self.pods(run) if pod.status.phase == "Running")
        self.client.create(Pod.Eviction(metadata=ObjectMeta(name=name, namespace=self.namespace)), name)
        return str(name)

    def state(self, run: str) -> str:
        return str(self.ask(f"flow_runs/{run}")["state"]["name"])

    def states(self, run: str) -> list[str]:
        found = self.ask(f"flow_run_states/?flow_run_id={run}")
        return [state["name"] for state in sorted(found, key=lambda state: state["timestamp"])]

    def log(self, run: str) -> list[str]:
        lines: list[str] = []
        while True:
            body = {
                "logs": {"flow_run_id": {"any_": [run]}},
                "sort": "TIMESTAMP_ASC",
                "limit": 200,
                "offset": len(lines),
            }
            page = self.ask("logs/filter", body)
            lines += [entry["message"] for entry in page]
            if len(page) < 200:
                return lines

    def until(self, what: str, test: Callable[[], Any], seconds: float = 240) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := test()):
            assert time.monotonic() < deadline, f"no {what} within {seconds:.0f} s"
            time.sleep(0.5)
        return found

    def wait(self, run: str, seconds: float = 300) -> str:
        """Wait for the run's end and return its state; its log is in the error when it takes too long."""
        ends = {"Completed", "Failed", "Crashed", "Cancelled"}
        try:
            return str(self.until("end", lambda: state if (state := self.state(run)) in ends else "", seconds))
        except AssertionError:
            print("\n".join(self.log(run)))
            raise

    def pods(self, run: str) -> list[Pod]:
        return list(self.client.list(Pod, labels={"prefect.io/flow-run-id": run}))

    def jobs(self, run: str) -> list[Job]:
        return list(self.client.list(Job, labels={"prefect.io/flow-run-id": run}))

    def _build(self) -> str:
        context = self.folder / "context"
        context.mkdir()
        archive = subprocess.run(["git", "-C", str(self.root), "archive", "HEAD"], capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", str(context)], input=archive.stdout, check=True)
        facts = dataclasses.asdict(code_version(self.root))
        facts["lock_sha256"] = hashlib.sha256((context / "requirements.lock").read_bytes()).hexdigest()
        facts["built"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        (context / "image.json").write_text(json.dumps(facts))
        (context / ".dockerignore").unlink(missing_ok=True)
        file = self.folder / "Dockerfile"
        file.write_text(DOCKERFILE.format(base=os.environ["MLOPS_TEST_BASE"]))
        name = f"{os.environ['MLOPS_TEST_REGISTRY']}/mlops-{uuid.uuid4().hex[:8]}:runs"
        build = ["podman", "build", "--quiet", "--isolation", "chroot", "--network", "host", "--tag", name]
        check(self.folder, *build, "--file", str(file), str(context))
        digest = self.folder / "digest"
        check(self.folder, "podman", "push", "--quiet", "--tls-verify=false", f"--digestfile={digest}", name)
        shutil.rmtree(context)
        return f"{name.rpartition(':')[0]}@{digest.read_text().strip()}"

    def _objects(self, wanted: Wanted, share_password: str) -> Iterator[dict[str, Any]]:
        variables = self.variables()
        servers = environment_map(wanted)
        servers["data"] |= {name: variables[name] for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")}
        yield servers
        credentials = {
            "prefect-auth": variables["PREFECT_API_AUTH_STRING"],
            "mlflow-user": variables["MLFLOW_TRACKING_USERNAME"],
            "mlflow-password": variables["MLFLOW_TRACKING_PASSWORD"],
        }
        for name, values in ((CREDENTIALS, credentials), (SHARE, {"password": share_password})):
            yield manifest("v1", "Secret", name, "run", namespace=self.namespace, stringData=values)
        yield manifest("v1", "ServiceAccount", RUN_ACCOUNT, "run", namespace=self.namespace)


@contextmanager
def pod_site(folder: Path, namespace: str, client: Client, **sizes: int) -> Iterator[PodSite]:
    """Make a :class:`PodSite` with a Samba server that pods reach."""
    interfaces = {"interfaces": f"127.0.0.1/8 {os.environ['MLOPS_TEST_ADDRESS']}/24"}
    with Smbd(folder / "samba", globals=interfaces) as smbd:
        site = PodSite(folder, namespace, client)
        try:
            site.make(smbd, **sizes)
            yield site
        finally:
            site.close()
