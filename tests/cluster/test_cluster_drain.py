"""Which disruption budgets a drain says keep its pods: the real kubectl, API server and disruption controller.

``pytest -m cluster``, see ``api_server.py``. There is no kubelet: pods run where they say so, and never end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import SPACE, Server, open_server

from infra.site.life.draining import drain

pytestmark = pytest.mark.cluster
RUNS = json.dumps({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
PART = "example.org/part"
# By their budgets' names; all are on the node that is drained.
KEPT = {
    "default/labels": {"app": "one", "tier": "back"},
    "default/value": {"app": "two"},
    "default/other-value": {"app": "three", PART: "b"},
    "default/key": {"kept": "yes"},
    "default/no-key": {"alone": "yes"},
    "whole/all": {"app": "nobody"},
}
BUDGETS: dict[str, dict[str, Any] | None] = {
    "default/labels": {"matchLabels": {"app": "one", "tier": "back"}},
    "default/value": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["two", "four"]}]},
    "default/other-value": {
        "matchExpressions": [
            {"key": PART, "operator": "Exists"},
            {"key": PART, "operator": "NotIn", "values": ["a", "c"]},
        ]
    },
    "default/key": {"matchExpressions": [{"key": "kept", "operator": "Exists"}]},
    "default/no-key": {
        "matchLabels": {"alone": "yes"},
        "matchExpressions": [{"key": "app", "operator": "DoesNotExist"}],
    },
    "whole/all": {},
    # It lets one of its two pods go, and then none.
    "default/pair": {"matchLabels": {"app": "pair"}},
    # These let none go either, and have none on the node, or none at all.
    "default/elsewhere": {"matchLabels": {"app": "elsewhere"}},
    "default/front": {"matchLabels": {"app": "one", "tier": "front"}},
    "default/unset": None,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with open_server(tmp_path_factory.mktemp("control-plane")) as made:
        yield made


def create(server: Server, kind: str, name: str, spec: dict[str, Any], api: str = "v1", **more: object) -> None:
    space, _, short = name.rpartition("/")
    metadata = {"name": short, **({"namespace": space} if space else {}), **more}
    described = {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}
    server.kubectl("create", "-f", "-", given=json.dumps(described))


def run_pod(server: Server, name: str, node: str, labels: dict[str, str]) -> None:
    space, _, short = name.partition("/")
    create(server, "Pod", name, {"nodeName": node, "containers": [{"name": "main", "image": "none"}]}, labels=labels)
    server.kubectl("patch", "pod", short, "-n", space, "--subresource=status", "-p", RUNS)


def until(server: Server, wanted: str, *words: str) -> None:
    """Wait until ``kubectl`` says so."""
    deadline = time.monotonic() + 60
    while (said := server.kubectl(*words).strip()) != wanted:
        assert time.monotonic() < deadline, said
        time.sleep(0.3)


def test_only_budgets_that_keep_a_pod_of_the_node_are_named(server: Server, tmp_path: Path) -> None:
    create(server, "Namespace", "whole", {})
    for node in ("worker", "other"):
        create(server, "Node", node, {})
    for space in ("default", "whole"):
        until(server, "serviceaccount/default", "get", "sa", "default", "-n", space, "--ignore-not-found", "-o", "name")
    for name, labels in KEPT.items():
        run_pod(server, name, "worker", labels)
    for name, node, app in (("pair-1", "worker", "pair"), ("pair-2", "other", "pair"), ("away", "other", "elsewhere")):
        run_pod(server, f"default/{name}", node, {"app": app})
    for name, selector in BUDGETS.items():
        spec = {"minAvailable": 1} | ({} if selector is None else {"selector": selector})
        create(server, "PodDisruptionBudget", name, spec, "policy/v1")
    allowed = "{range .items[*]}{.metadata.name}={.status.observedGeneration}/{.status.disruptionsAllowed} {end}"
    counted = (f"{name.partition('/')[2]}=1/{int(name == 'default/pair')}" for name in sorted(BUDGETS))
    until(server, " ".join(counted), "get", "pdb", "-A", "-o", f"jsonpath={allowed}")

    login = f"--kubeconfig={server.root}/etc/kubernetes/admin.conf --tls-server-name=cluster"
    (tmp_path / "kubectl").write_text(f'#!/bin/sh\nexec {shutil.which("kubectl")} "$@" {login}\n')
    (tmp_path / "kubectl").chmod(0o755)
    command = drain("worker", ("--force", "--timeout=8s"), 8)
    done = subprocess.run(
        ("nsenter", f"--net=/run/netns/{SPACE}", *command.argv),
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    print(done.stdout, done.stderr)
    assert (done.returncode, done.stderr) == (1, "")
    what, remedy = command.explain(done.stdout) or ("", "")
    pods, budgets = re.findall(r"drained: (.*) may not end .* \((.*)\)$", what)[0]
    assert sorted(pods.split(", ")) == sorted(KEPT)
    assert budgets.split(", ") == sorted(KEPT)
    assert re.findall(r"`kubectl -n (\S+) edit pdb (\S+)`", remedy) == [tuple(name.split("/")) for name in sorted(KEPT)]
