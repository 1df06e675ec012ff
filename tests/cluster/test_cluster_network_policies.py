"""Who reaches whom where the cluster's network enforces policies: the platform's own, around pods that stand in for it.

``MLOPS_TEST_IMAGE`` is an image with Python that all nodes have. Where the network lets everything through, that is
said and nothing is tried.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from lightkube import Client, codecs
from lightkube.types import CascadeType
from troubles import IMAGE

from configs.cluster import Cluster
from infra.kubernetes.client import connect
from infra.kubernetes.gang.pod import GANG
from infra.kubernetes.manifests import (
    MLFLOW,
    MLFLOW_PORT,
    POSTGRES,
    POSTGRES_PORT,
    PREFECT,
    PREFECT_PORT,
    RUN,
    labels,
)
from infra.kubernetes.platform import network
from infra.kubernetes.platform.wanted import Wanted

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="no cluster: KUBECONFIG is not set"),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl"),
]
RENDEZVOUS = 29500
PORTS = (PREFECT_PORT, MLFLOW_PORT, POSTGRES_PORT, RENDEZVOUS)
LISTEN = f"""
import socket, time
held = [socket.create_server(("", port)) for port in {PORTS}]
time.sleep(100000)
"""
ASK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)"
OPENS_S = 60.0


@dataclass
class Town:
    """Pods of two namespaces, by name; each listens on all ports.

    Attributes:
        own: the platform's namespace, with its policies. outside: another one, in which nobody may reach ``guarded``.
    """

    own: str
    outside: str
    pods: dict[str, tuple[str, str]]

    def reaches(self, caller: str, other: str, port: int) -> bool:
        namespace, _ = self.pods[caller]
        command = [
            "kubectl",
            "exec",
            "-n",
            namespace,
            caller,
            "--",
            "python3",
            "-c",
            ASK,
            self.pods[other][1],
            str(port),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 or "socket" in done.stderr or "imeout" in done.stderr, done.stderr
        return done.returncode == 0


def _pod(name: str, given: dict[str, str]) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", LISTEN],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": given},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    own, outside = (f"mlops-test-{uuid.uuid4().hex[:8]}" for _ in range(2))
    client = connect(Cluster(namespace=own))
    inhabitants = {
        **{name: (own, labels(name)) for name in (PREFECT, MLFLOW, POSTGRES, RUN)},
        **{f"rank-{number}": (own, {**labels(RUN), GANG: "one"}) for number in range(2)},
        "stranger": (outside, {"app": "stranger"}),
        "guarded": (outside, {"app": "guarded"}),
    }
    guard = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "guarded"},
        "spec": {"podSelector": {"matchLabels": {"app": "guarded"}}, "policyTypes": ["Ingress"]},
    }
    try:
        for namespace in (own, outside):
            _create(client, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        for policy in network.manifests(Wanted(Cluster(namespace=own), IMAGE)):
            _create(client, policy, own)
        _create(client, guard, outside)
        for name, (namespace, given) in inhabitants.items():
            _create(client, _pod(name, given), namespace)
        pods = {name: (namespace, _address(client, namespace, name)) for name, (namespace, _) in inhabitants.items()}
        yield Town(own, outside, pods)
    finally:
        from lightkube.resources.core_v1 import Namespace

        for namespace in (own, outside):
            client.delete(Namespace, namespace, cascade=CascadeType.BACKGROUND)


def _create(client: Client, manifest: dict[str, Any], namespace: str | None = None) -> None:
    client.create(codecs.from_dict(manifest), **({"namespace": namespace} if namespace else {}))  # type: ignore[arg-type]


def _address(client: Client, namespace: str, name: str) -> str:
    from lightkube.resources.core_v1 import Pod

    deadline = time.monotonic() + 120
    while True:
        status = client.get(Pod, name, namespace=namespace).status
        if status and status.phase == "Running" and status.podIP:
            return str(status.podIP)
        assert time.monotonic() < deadline, f"pod {name}: {status}"
        time.sleep(0.5)


def test_what_the_platform_needs_is_open_and_everything_else_is_closed(town: Town) -> None:
    opened = [
        (RUN, PREFECT, PREFECT_PORT),
        (RUN, MLFLOW, MLFLOW_PORT),
        ("rank-0", PREFECT, PREFECT_PORT),
        ("rank-0", "rank-1", RENDEZVOUS),
        (PREFECT, POSTGRES, POSTGRES_PORT),
        (MLFLOW, POSTGRES, POSTGRES_PORT),
        (RUN, "stranger", RENDEZVOUS),
    ]
    closed = [
        ("stranger", PREFECT, PREFECT_PORT),
        ("stranger", MLFLOW, MLFLOW_PORT),
        ("stranger", POSTGRES, POSTGRES_PORT),
        ("stranger", "rank-0", RENDEZVOUS),
        (RUN, POSTGRES, POSTGRES_PORT),
        (RUN, PREFECT, POSTGRES_PORT),
        (RUN, "rank-1", RENDEZVOUS),
        (POSTGRES, PREFECT, PREFECT_PORT),
        (POSTGRES, "stranger", RENDEZVOUS),
    ]
    # A policy takes a moment to reach the nodes of a new pod.
    deadline = time.monotonic() + OPENS_S
    while time.monotonic() < deadline and not all(town.reaches(*way) for way in opened):
        time.sleep(1)
    assert [way for way in opened if not town.reaches(*way)] == []
    if town.reaches("stranger", "guarded", RENDEZVOUS):
        pytest.skip("this cluster's network does not enforce policies")
    assert [way for way in closed if town.reaches(*way)] == []
