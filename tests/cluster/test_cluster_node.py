"""A machine that has joined, on a real cluster: its serving certificate is approved, its role and labels are given.

The machine is a folder here: openssl and kubectl ask as its kubelet would, by a certificate that the cluster signed.
Needs kubectl and openssl on the path.
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from here import Here

from infra.site.engine import State, problems_of, run_steps
from infra.site.inventory import SiteMachine
from infra.site.steps.cluster_health import cluster_health_step
from infra.site.steps.node import SET, WORKER_ROLE, node_step

pytestmark = pytest.mark.cluster
ADDRESS = "192.168.10.101"


def run(*words: str, given: str = "") -> str:
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass
class Kubelet:
    """What asks the cluster in a node's name."""

    name: str
    machine: Here

    @property
    def folder(self) -> Path:
        return self.machine.folder

    def ask(self, signer: str, usage: str, names: str = "", config: str = "kubelet.conf") -> str:
        """Ask for a certificate and return the request's name."""
        key, request = self.folder / "key.pem", self.folder / "csr.pem"
        subject = f"/O=system:nodes/CN=system:node:{self.name}"
        extension = ["-addext", f"subjectAltName={names}"] if names else []
        command = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        run(*command, "-keyout", str(key), "-out", str(request), "-subj", subject, *extension)
        name = f"{self.name}-{uuid.uuid4().hex[:6]}"
        spec = {
            "request": base64.b64encode(request.read_bytes()).decode(),
            "signerName": f"kubernetes.io/{signer}",
            "usages": ["digital signature", usage],
        }
        asked = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
        }
        run(
            "kubectl",
            f"--kubeconfig={self.folder / config}",
            "create",
            "-f-",
            given=json.dumps({**asked, "spec": spec}),
        )
        return name

    def take(self, request: str, path: Path, limit_s: float = 60) -> None:
        """Wait until a request is signed, and write the certificate with its key."""
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            said = run("kubectl", "get", "csr", request, "-o=jsonpath={.status.certificate}")
            if said:
                path.write_text(base64.b64decode(said).decode() + (self.folder / "key.pem").read_text())
                return
            time.sleep(0.5)


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[Kubelet]:
    if not os.environ.get("KUBECONFIG") or shutil.which("kubectl") is None:
        pytest.skip("no cluster: KUBECONFIG is not set, or there is no kubectl")
    name = f"mlops-test-{uuid.uuid4().hex[:8]}"
    found = Kubelet(name, Here(tmp_path / name))
    login = tmp_path / name / "client.pem"
    request = found.ask("kube-apiserver-client-kubelet", "client auth", config="admin.conf")
    run("kubectl", "certificate", "approve", request)
    found.take(request, login)
    config = yaml.safe_load((found.folder / "admin.conf").read_text())
    data = base64.b64encode(login.read_bytes()).decode()
    config["users"][0]["user"] = {"client-certificate-data": data, "client-key-data": data}
    (found.folder / "kubelet.conf").write_text(yaml.safe_dump(config))
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}
    run("kubectl", f"--kubeconfig={found.folder}/kubelet.conf", "create", "-f-", given=json.dumps(node))
    yield found
    run("kubectl", "delete", "node", name)
    left = run("kubectl", "get", "csr", "-o=name").split()
    run("kubectl", "delete", *[item for item in left if name in item])


def described(kubelet: Kubelet, **changed: Any) -> SiteMachine:
    machine = SiteMachine(kubelet.name, ADDRESS, ("worker",), "root", 22, Path("key"), {"rack": "b2"})
    return replace(machine, **changed)


def apply(kubelet: Kubelet, machine: SiteMachine) -> tuple[State, str]:
    step = node_step(machine, "master", (), gpu=False)
    machines = {kubelet.name: kubelet.machine, "master": kubelet.machine}
    outcomes = run_steps([step], machines, lambda *_: None, apply=True)
    return outcomes[(kubelet.name, "node")].state, "\n".join(map(str, problems_of(outcomes)))


def metadata(kubelet: Kubelet) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("kubectl", "get", "node", kubelet.name, "-o=json"))["metadata"]
    return found


def test_a_joined_machine_gets_certificate_role_and_labels_and_nothing_twice(kubelet: Kubelet) -> None:
    request = kubelet.ask("kubelet-serving", "server auth", f"DNS:{kubelet.name},IP:{ADDRESS}")
    serving = kubelet.folder / "pki" / "kubelet-server-current.pem"
    writing = threading.Thread(target=kubelet.take, args=(request, serving))
    writing.start()
    try:
        assert apply(kubelet, described(kubelet)) == (State.CHANGED, "")
    finally:
        writing.join()
    labels = metadata(kubelet)["labels"]
    assert (labels["rack"], labels[WORKER_ROLE]) == ("b2", "")
    assert apply(kubelet, described(kubelet)) == (State.FITS, "")
    run("openssl", "verify", "-CAfile", str(cluster_ca(kubelet)), str(serving))
    # What the site does not say any more is taken away; what others have given stays.
    run("kubectl", "label", "node", kubelet.name, "somebodys=1")
    assert apply(kubelet, described(kubelet, labels={"disk": "fast"})) == (State.CHANGED, "")
    found = metadata(kubelet)
    assert found["annotations"][SET] == f"disk,{WORKER_ROLE}"
    assert {key: found["labels"].get(key) for key in ("rack", "disk", "somebodys")} == {
        "rack": None,
        "disk": "fast",
        "somebodys": "1",
    }


def test_whoever_asks_in_anothers_name_gets_nothing(kubelet: Kubelet) -> None:
    request = kubelet.ask("kubelet-serving", "server auth", f"DNS:{kubelet.name},DNS:master,IP:{ADDRESS}")
    state, said = apply(kubelet, described(kubelet))
    assert state is State.FAILED
    assert "asks for master as well" in said
    assert run("kubectl", "get", "csr", request, "-o=jsonpath={.status}") == "{}"


def cluster_ca(kubelet: Kubelet) -> Path:
    config = yaml.safe_load((kubelet.folder / "admin.conf").read_text())
    path = kubelet.folder / "ca.crt"
    path.write_bytes(base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]))
    return path


def test_a_node_whose_kubelet_is_dead_is_found(kubelet: Kubelet) -> None:
    step = cluster_health_step("master", datetime.datetime(2999, 1, 1, tzinfo=datetime.UTC), ())
    outcome = run_steps([step], {"master": kubelet.machine}, lambda *_: None, apply=False)["master", "cluster-health"]
    assert outcome.error is None
    assert any(f"have node {kubelet.name} back" in change.what for change in outcome.changes)
