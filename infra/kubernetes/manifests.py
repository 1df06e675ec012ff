"""What all manifests of ours share: names, labels, and the parts of pods that are alike everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Manifest = Mapping[str, Any]
"""An object as it is sent to the API server."""

PART_OF = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"
MANAGED_BY = "app.kubernetes.io/managed-by"
MLOPS = "mlops"
OURS = {PART_OF: MLOPS, MANAGED_BY: MLOPS}
"""Labels of everything that is ours."""

POSTGRES, PREFECT, MLFLOW, WORKER, RUN = "postgres", "prefect", "mlflow", "worker", "run"
"""Components: servers, the worker, and what is of the runs."""
RUN_LABEL = "prefect.io/flow-run-id"
"""Label of a run's own Job and pod: Prefect's."""
PREFECT_PORT, MLFLOW_PORT, POSTGRES_PORT = 4200, 5000, 5432
ENVIRONMENT = "mlops-environment"
CREDENTIALS = "mlops-credentials"
SHARE = "mlops-share"
REGISTRY = "mlops-registry"
WORKER_ACCOUNT = "mlops-worker"
RUN_ACCOUNT = "mlops-run"
WORK_POOL = "kubernetes"

POD, NODE, CORES = "MLOPS_POD", "MLOPS_NODE", "MLOPS_CORES"
"""Variables by which a run's pod knows its own name, its node's, and how many processors it may use."""

IMAGE_USER = 10001
"""User and group of our image."""
CODE = "/opt/mlops"
"""Where our image has the code."""
IMAGE_HOME = f"{CODE}/.mlops"
CACHE = "/cache"
"""Where a pod has its node's folder for the cache of DVC."""

CONTAINER = {"imagePullPolicy": "IfNotPresent", "terminationMessagePolicy": "FallbackToLogsOnError"}
"""What all our containers are: images are pinned, and whoever ends badly leaves the end of his log in his pod."""


def title(manifest: Manifest) -> str:
    """Return how a manifest is named to people: ``Deployment prefect``."""
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def labels(component: str) -> dict[str, str]:
    """Return the labels of everything that belongs to ``component``."""
    return {PART_OF: MLOPS, COMPONENT: component, MANAGED_BY: MLOPS}


def shared_name(namespace: str, name: str) -> str:
    """Return the name of an object of the whole cluster that belongs to the platform in ``namespace``."""
    return f"{namespace}-{name}"


def manifest(
    api_version: str,
    kind: str,
    name: str,
    component: str,
    *,
    namespace: str | None = None,
    annotations: Mapping[str, str] | None = None,
    **rest: Any,
) -> dict[str, Any]:
    """Return a manifest with our labels; without a namespace it is one of the whole cluster."""
    metadata: dict[str, Any] = {"name": name, "labels": labels(component)}
    if namespace is not None:
        metadata["namespace"] = namespace
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}


def service(namespace: str, name: str, port: int, *, headless: bool = False) -> dict[str, Any]:
    """Return the Service of a component that listens on ``port``, under its own name."""
    spec: dict[str, Any] = {
        "selector": labels(name),
        "ports": [{"name": name, "port": port, "targetPort": port, "protocol": "TCP"}],
    }
    if headless:
        spec["clusterIP"] = "None"
    return manifest("v1", "Service", name, name, namespace=namespace, spec=spec)


def pod_security(user: int) -> dict[str, Any]:
    """Return the security context of a pod that runs as ``user``, to whom its volumes belong."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        # A volume with many files is not walked through at each start.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """Return the security context of a container that needs no right of the kernel's and writes to volumes only."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def values(variables: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return plain environment variables of a container."""
    return [{"name": name, "value": value} for name, value in variables.items()]


def secret_value(name: str, secret: str, key: str, *, optional: bool = False) -> dict[str, Any]:
    """Return an environment variable of a container that a Secret holds; an optional one is left out if it does not."""
    reference: dict[str, Any] = {"name": secret, "key": key}
    if optional:
        reference["optional"] = True
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def scratch(name: str, limit: str) -> dict[str, Any]:
    """Return a volume that is empty at the start of its pod and gone with it."""
    return {"name": name, "emptyDir": {"sizeLimit": limit}}


def amounts(cpu: str, memory: str, cpu_limit: str, memory_limit: str) -> dict[str, Any]:
    """Return what a container asks for, and the most that it gets."""
    return {
        "requests": {"cpu": cpu, "memory": memory},
        "limits": {"cpu": cpu_limit, "memory": memory_limit},
    }


def probes(action: Mapping[str, Any], ready: Mapping[str, Any] | None = None, *, start_s: int) -> dict[str, Any]:
    """Return the probes of a server: it has ``start_s`` seconds to come up, and hangs when silent for three minutes."""
    return {
        "startupProbe": {**action, "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": start_s // 2},
        "livenessProbe": {**action, "periodSeconds": 20, "timeoutSeconds": 20, "failureThreshold": 9},
        "readinessProbe": {**(ready or action), "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3},
    }


def http_get(path: str, port: int) -> dict[str, Any]:
    """Return the probe's question; by the name of the loopback, which servers that check names accept."""
    return {"httpGet": {"path": path, "port": port, "httpHeaders": [{"name": "Host", "value": "localhost"}]}}


def pull_secrets(names: Sequence[str]) -> dict[str, Any]:
    """Return the part of a pod that says with which Secrets its images are pulled; empty for none."""
    return {"imagePullSecrets": [{"name": name} for name in names]} if names else {}
