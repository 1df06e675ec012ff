"""Who goes first and how much all runs get together: priority classes, quotas, and what a container gets by default."""

from __future__ import annotations

from typing import Any

from infra.kubernetes.manifests import RUN, manifest
from infra.kubernetes.platform.wanted import Wanted

PRIORITIES = {
    "mlops-platform": (1_000_000, "Prefect, MLflow, Postgres and the worker: without them no run gets on."),
    "mlops-urgent": (1_000, "A run that others have to make room for."),
    "mlops-training": (100, "A run."),
    "mlops-background": (10, "A run that takes what is left, and makes room for others."),
}
TRAINING_PRIORITIES = tuple(name for name in PRIORITIES if name != "mlops-platform")


def priorities() -> list[dict[str, Any]]:
    """Return the priority classes: of the whole cluster, the same for every namespace of ours."""
    return [
        manifest(
            "scheduling.k8s.io/v1",
            "PriorityClass",
            name,
            "priority",
            value=value,
            globalDefault=False,
            # Only who asks for it pushes others aside.
            preemptionPolicy="Never" if name == "mlops-background" else "PreemptLowerPriority",
            description=description,
        )
        for name, (value, description) in PRIORITIES.items()
    ]


def quotas(wanted: Wanted) -> list[dict[str, Any]]:
    """Return the quotas of runs (told by their priority class, so that the platform's own pods never wait for one).

    GPUs and pods of unknown priority have a quota of their own: the first kind does not know them.
    """
    quota = wanted.cluster.quota
    runs: dict[str, str] = {}
    for name, amount in (("cpu", quota.cpu), ("memory", quota.memory)):
        if amount is not None:
            runs[f"requests.{name}"] = amount
    if quota.pods is not None:
        runs["pods"] = str(quota.pods)
    found = []
    if runs:
        scope = {"scopeName": "PriorityClass", "operator": "In", "values": list(TRAINING_PRIORITIES)}
        spec = {"hard": runs, "scopeSelector": {"matchExpressions": [scope]}}
        found.append(manifest("v1", "ResourceQuota", "mlops-runs", RUN, namespace=wanted.namespace, spec=spec))
    if quota.gpus is not None:
        spec = {"hard": {"requests.nvidia.com/gpu": str(quota.gpus)}}
        found.append(manifest("v1", "ResourceQuota", "mlops-gpus", RUN, namespace=wanted.namespace, spec=spec))
    return found


def defaults(wanted: Wanted) -> list[dict[str, Any]]:
    """Return what a container of the namespace gets that asks for nothing: a quota counts only what is asked for."""
    training = wanted.cluster.training
    amounts = {"cpu": training.cpu, "memory": training.memory}
    limit = {"type": "Container", "default": amounts, "defaultRequest": amounts}
    return [manifest("v1", "LimitRange", "mlops-defaults", RUN, namespace=wanted.namespace, spec={"limits": [limit]})]
