"""How the platform's components are: ready, of which image, restarted how often, and what is wrong in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.kubernetes.manifests import COMPONENT, MLFLOW, OURS, POSTGRES, PREFECT, WORKER
from infra.kubernetes.objects import find
from infra.kubernetes.platform.server import COMMIT
from infra.kubernetes.platform.trouble import Trouble, pod_trouble

if TYPE_CHECKING:
    from lightkube import Client

COMPONENTS = (POSTGRES, PREFECT, MLFLOW, WORKER)


@dataclass(frozen=True)
class ComponentState:
    """A component as the cluster has it now.

    Attributes:
        installed: there is a Deployment or StatefulSet of it.
        ready: its newest pods do their work, and no other is left to be replaced.
        pod: name of its newest pod. node: where that runs.
        since: when that pod started, ISO 8601.
        trouble: why it is not ready.
    """

    name: str
    installed: bool = False
    ready: bool = False
    image: str = ""
    commit: str = ""
    restarts: int = 0
    pod: str = ""
    node: str = ""
    since: str = ""
    trouble: Trouble | None = None


def component_states(client: Client) -> list[ComponentState]:
    """Return the state of each of :data:`COMPONENTS`.

    Raises:
        httpx2.HTTPError: the API server refuses, or is away.
    """
    return [_state(client, name) for name in COMPONENTS]


def newest_pod(client: Client, component: str) -> Mapping[str, Any] | None:
    """Return the newest pod of a component that is not being deleted, None where there is none."""
    from lightkube.resources.core_v1 import Pod

    found = [pod.to_dict() for pod in client.list(Pod, labels={**OURS, COMPONENT: component})]
    kept = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
    return max(kept, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)


def _state(client: Client, name: str) -> ComponentState:
    from lightkube.resources.apps_v1 import Deployment, StatefulSet

    found = find(client, StatefulSet if name == POSTGRES else Deployment, name)
    if found is None:
        return ComponentState(name, trouble=Trouble("is not installed: mlops platform apply", lasting=True))
    workload: Mapping[str, Any] = found.to_dict()
    template = workload["spec"]["template"]
    image = template["spec"]["containers"][0]["image"]
    commit = template["metadata"].get("annotations", {}).get(COMMIT, "")
    pod = newest_pod(client, name)
    ready = _is_ready(workload)
    if pod is None:
        trouble = None if ready else Trouble(_no_pod(workload))
        return ComponentState(name, True, ready, image, commit, trouble=trouble)
    status = pod.get("status", {})
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return ComponentState(
        name,
        installed=True,
        ready=ready,
        image=image,
        commit=commit,
        restarts=sum(int(one.get("restartCount", 0)) for one in containers),
        pod=pod["metadata"]["name"],
        node=pod["spec"].get("nodeName", ""),
        since=str(status.get("startTime", "")),
        trouble=None if ready else pod_trouble(client, pod),
    )


def _is_ready(workload: Mapping[str, Any]) -> bool:
    status, spec = workload.get("status", {}), workload["spec"]
    wanted = spec.get("replicas", 1)
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return False
    if status.get("updateRevision") != status.get("currentRevision"):
        return False
    updated = status.get("updatedReplicas", 0)
    return bool(updated >= wanted and status.get("readyReplicas", 0) >= wanted == status.get("replicas", 0))


def _no_pod(workload: Mapping[str, Any]) -> str:
    for condition in workload.get("status", {}).get("conditions", ()):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return f"gets no pod: {condition.get('message', '')}"
    return "waits for its pod"
