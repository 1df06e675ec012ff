"""The record of one trouble: the same in the run's log, in its artifact and in the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Category(StrEnum):
    """What kind of trouble it is; the value is what a user reads."""

    IMAGE_NOT_FOUND = "image not found"
    IMAGE_NAME = "image name invalid"
    PULL_DENIED = "pull denied"
    REGISTRY_TLS = "registry TLS"
    REGISTRY_AWAY = "registry away"
    IMAGE_UNUSABLE = "image does not start"
    SLOW_START = "slow start"
    UNSCHEDULABLE = "unschedulable"
    QUOTA = "quota exceeded"
    FORBIDDEN = "refused by the API"
    PVC_UNBOUND = "volume claim not bound"
    MOUNT_FAILED = "mount failed"
    CONFIG_MISSING = "configuration missing"
    SHM = "shared memory too small"
    OUT_OF_MEMORY = "out of memory"
    DISK_PRESSURE = "disk full"
    EVICTED = "evicted"
    NODE_LOST = "node lost"
    NODE_SHUTDOWN = "node shut down"
    PREEMPTED = "preempted"
    POD_DELETED = "pod deleted"
    DEADLINE = "deadline exceeded"
    USER_CODE = "the code failed"
    RENDEZVOUS = "rendezvous timeout"
    NETWORK = "network between ranks"
    API_AWAY = "API server away"
    PREFECT_UNREACHABLE = "Prefect unreachable from the pod"
    POOL_PAUSED = "work pool paused"
    NO_WORKER = "no worker"
    QUEUED = "queued"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Diagnosis:
    """One trouble of a run.

    Attributes:
        what: what happened, one sentence that names the pod's node, image, limit or whatever is concerned.
        evidence: the cluster's own words, a line an item, with times; holds no secrets.
        remedy: what to type or change.
        passing: it can pass by itself or by a retry; else only a change by a person mends it.
        avoid: nodes that a retry should not go to.
    """

    category: Category
    what: str
    evidence: tuple[str, ...] = ()
    remedy: str = ""
    passing: bool = False
    avoid: tuple[str, ...] = ()

    def text(self) -> str:
        """Return it for a log or a terminal."""
        lines = [f"{self.category}: {self.what}", *(f"    {line}" for line in self.evidence)]
        return "\n".join([*lines, f"    -> {self.remedy}"] if self.remedy else lines)

    def markdown(self) -> str:
        """Return it as the artifact of a run."""
        parts = [f"### {self.category.capitalize()}", self.what]
        if self.evidence:
            fence = "```" if not any("```" in line for line in self.evidence) else "~~~~"
            parts.append("\n".join([fence, *self.evidence, fence]))
        if self.remedy:
            parts.append(f"**What to do:** {self.remedy}")
        parts.append("It can pass by itself or by a retry." if self.passing else "It needs a change: no retry helps.")
        return "\n\n".join(parts)
