"""The record of one trouble: the same in the run's log, in its artifact and in the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self


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

    def to_json(self) -> str:
        """Return it as one JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            values: Mapping[str, Any] = json.loads(text)
            return cls(
                Category(values["category"]),
                str(values["what"]),
                tuple(values["evidence"]),
                str(values["remedy"]),
                bool(values["passing"]),
                tuple(values["avoid"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no diagnosis: {error}") from None
