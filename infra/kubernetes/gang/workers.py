"""The workers of a distributed training as the API server shows their pods: where each is, why it waits, how it ended.

Pure: pods in, facts and sentences out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from infra.kubernetes.diagnosis.nodes import UNSEEN
from infra.kubernetes.gang.pod import CONTAINER

INDEX = "batch.kubernetes.io/job-completion-index"
_FINISHED = ("Succeeded", "Failed")
_HOPELESS = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError")
_REFUSED = ("not found", "denied", "unauthorized", "does not exist", "no such host", "certificate")
_ENDS = {
    "OOMKilled": "it used more memory than its limit of {memory}",
    "Evicted": "its node put it out: {message}",
    "DisruptionTarget": "{message}",
    **dict.fromkeys(UNSEEN, "its node went off, or containerd there, and nobody saw its end"),
}


@dataclass(frozen=True)
class Worker:
    """One pod of a gang.

    Attributes:
        index: of the worker; a replaced worker has several pods.
        made: when the pod was made, as the API writes it.
        node: empty as long as it has none.
        runs: its container has started and not ended.
        trouble: why it does not run yet, empty where nothing is wrong.
        hopeless: and waiting does not help.
        leaving: the pod is being deleted.
        exit_code: of the container, None as long as it has not ended.
        why: why it ended, where Kubernetes knows more than the exit code.
    """

    index: int
    pod: str
    uid: str
    made: str
    node: str = ""
    runs: bool = False
    trouble: str = ""
    hopeless: bool = False
    leaving: bool = False
    finished: bool = False
    succeeded: bool = False
    exit_code: int | None = None
    why: str = ""

    def __str__(self) -> str:
        return f"worker {self.index} on {self.node}" if self.node else f"worker {self.index}"

    def end(self) -> str:
        """Return how it ended, in words."""
        code = f"ended with exit code {self.exit_code}" if self.exit_code is not None else "ended"
        return f"{code}: {self.why}" if self.why else code


def read_worker(pod: Mapping[str, Any]) -> Worker:
    """Read one pod."""
    metadata, spec, status = pod["metadata"], pod.get("spec", {}), pod.get("status", {})
    phase = status.get("phase", "Pending")
    state = _container(status).get("state") or {}
    ended = state.get("terminated")
    trouble, hopeless = _trouble(status, state) if phase == "Pending" else ("", False)
    return Worker(
        index=int((metadata.get("labels") or {}).get(INDEX, -1)),
        pod=metadata["name"],
        uid=metadata["uid"],
        made=str(metadata.get("creationTimestamp", "")),
        node=spec.get("nodeName") or "",
        runs="running" in state and phase == "Running",
        trouble=trouble,
        hopeless=hopeless,
        leaving=bool(metadata.get("deletionTimestamp")),
        finished=phase in _FINISHED,
        succeeded=phase == "Succeeded",
        exit_code=ended.get("exitCode") if ended else None,
        why=_why(pod, ended or {}) if phase == "Failed" else "",
    )


def newest(workers: Iterable[Worker]) -> dict[int, Worker]:
    """Return each index's present pod: the one made last."""
    return {worker.index: worker for worker in sorted(workers, key=lambda worker: (worker.made, not worker.finished))}


def changes(before: Mapping[str, Worker], now: Mapping[str, Worker]) -> list[str]:
    """Return what happened between two looks at the pods, by uid; a line each."""
    lines = []
    for uid, worker in sorted(now.items(), key=lambda item: (item[1].made, item[1].index)):
        earlier = before.get(uid)
        if earlier is None and any(other.index == worker.index for other in before.values()):
            lines.append(f"worker {worker.index} is replaced by another pod")
        if worker.runs and not (earlier and earlier.runs):
            lines.append(f"worker {worker.index} runs on {worker.node}")
        if worker.trouble and worker.trouble != (earlier.trouble if earlier else ""):
            lines.append(f"worker {worker.index} waits: {worker.trouble}")
        if worker.leaving and not worker.finished and not (earlier and earlier.leaving):
            lines.append(f"{worker} is being deleted")
        if worker.finished and not worker.succeeded and not (earlier and earlier.finished):
            lines.append(f"{worker} {worker.end()}")
    for uid, worker in before.items():
        if uid not in now and not worker.finished:
            lines.append(f"{worker} is lost: its pod is gone")
    return lines


def missing(workers: Mapping[int, Worker], most: int, no_pod: str) -> list[str]:
    """Return for each worker that does not run which it is, and why; ``no_pod`` is said of those without one."""
    lines = []
    for index in range(most):
        worker = workers.get(index)
        if worker is None:
            lines.append(f"worker {index}: {no_pod}")
        elif worker.finished:
            lines.append(f"worker {index}: {worker.end()}")
        elif not worker.runs:
            lines.append(f"worker {index}: {worker.trouble or 'is starting'}")
    return lines


def _container(status: Mapping[str, Any]) -> Mapping[str, Any]:
    found = [item for item in status.get("containerStatuses") or () if item.get("name") == CONTAINER]
    return found[0] if found else {}


def _trouble(status: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[str, bool]:
    """Return why a pod that is pending does not run, and whether waiting is in vain."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            if condition.get("reason") == "Schedulable":  # as Volcano says it of a member of a gang
                return "there is room for it, but not for as many of its gang as must start together", False
            return f"{condition.get('reason', 'Unschedulable')}: {condition.get('message', '')}".strip(), False
    initial = [item.get("state") or {} for item in status.get("initContainerStatuses") or ()]
    for waiting in ((item.get("waiting") or {}) for item in (*initial, state)):
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in ("", "ContainerCreating", "PodInitializing"):
            continue
        if reason in ("ErrImagePull", "ImagePullBackOff"):
            # Both take turns, and the second repeats the first.
            cause = message.rpartition("ErrImagePull: ")[2]
            return f"the image cannot be pulled: {cause}", any(word in cause for word in _REFUSED)
        return f"{reason}: {message}".strip(": "), reason in _HOPELESS
    return "", False


def _why(pod: Mapping[str, Any], ended: Mapping[str, Any]) -> str:
    status = pod.get("status", {})
    reasons = [
        (ended.get("reason", ""), ended.get("message", "")),
        (status.get("reason", ""), status.get("message", "")),
    ]
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            reasons.append(("DisruptionTarget", condition.get("message", "")))
    containers = pod.get("spec", {}).get("containers") or [{}]
    memory = (containers[0].get("resources") or {}).get("limits", {}).get("memory", "")
    for reason, message in reasons:
        if reason in _ENDS:
            return _ENDS[reason].format(memory=memory, message=message)
    return next((message for reason, message in reasons if message and reason not in ("", "Error")), "")
