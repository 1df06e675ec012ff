"""Flow runs and Jobs that no longer belong together, because somebody was away when one of them ended.

The observer of Prefect's worker acts on what it sees happen. This compares what is: a run whose Job is gone, a run that
a former worker took without making its Job, a Job whose run has ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

SETTLE = timedelta(seconds=30)
"""How long a mismatch must last: ends are reported by the pod, the observer and the server in any order."""
END = timedelta(seconds=60)
"""How long a Job may outlive its crashed or cancelled run: a training writes its checkpoint meanwhile."""


class Remedy(Enum):
    """What to do about a run or its Job."""

    TAKE_OVER = auto()
    CRASH = auto()
    CANCEL = auto()
    REMEMBER = auto()
    DELETE_JOB = auto()


@dataclass(frozen=True)
class Job:
    """What of a Job matters here; ``ended`` is "" while it can still have a pod."""

    name: str
    namespace: str
    ended: str
    created: str = ""
    deleted: bool = False

    @classmethod
    def read(cls, manifest: Mapping[str, Any]) -> Job:
        """Of a Job as the API gives it."""
        ended = ""
        for condition in (manifest.get("status") or {}).get("conditions") or []:
            if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
                ended = condition.get("message") or condition.get("reason") or str(condition["type"])
        metadata = manifest["metadata"]
        deleted = bool(metadata.get("deletionTimestamp"))
        return cls(metadata["name"], metadata["namespace"], ended, metadata.get("creationTimestamp") or "", deleted)


@dataclass(frozen=True)
class Mismatch:
    """One run, what is wrong with it and what is to be done; ``settle`` is how long it must have lasted."""

    run: FlowRun
    remedy: Remedy
    why: str
    job: Job | None = None
    settle: timedelta = SETTLE


@dataclass
class Lost:
    """Finds mismatches; remembers since when, so that none is acted upon before it has lasted.

    Args:
        namespace: where the Jobs are; a run whose Job was made elsewhere is left alone.
    """

    namespace: str
    _since: dict[tuple[UUID, Remedy], datetime] = field(default_factory=dict)

    def find(
        self, runs: Iterable[FlowRun], jobs: Mapping[UUID, Collection[Job]], own: Collection[UUID], now: datetime
    ) -> list[Mismatch]:
        """Return what is to be done now.

        Args:
            runs: all Pending, Running and Cancelling runs of the pool, and the Crashed and Cancelled ones among those
                that have Jobs.
            jobs: the Jobs of the namespace by flow run.
            own: the runs that this worker is making Jobs for.
            now: with a timezone.
        """
        seen = [found for run in runs if run.id not in own and (found := self._mismatch(run, jobs.get(run.id, ())))]
        self._since = {(item.run.id, item.remedy): self._since.get((item.run.id, item.remedy), now) for item in seen}
        return [item for item in seen if now - self._since[item.run.id, item.remedy] >= item.settle]

    def _mismatch(self, run: FlowRun, jobs: Collection[Job]) -> Mismatch | None:
        state = run.state
        if state is None or not (run.infrastructure_pid or f"{self.namespace}:").startswith(f"{self.namespace}:"):
            return None
        alive = next((job for job in jobs if not job.ended and not job.deleted), None)
        if state.is_final():
            return Mismatch(run, Remedy.DELETE_JOB, "its run has ended", alive, END) if alive else None
        if state.is_cancelling():
            # Prefect's worker cancels a run while it makes its Job, the pod once it has begun, and nobody in between.
            if run.start_time is None:
                return Mismatch(run, Remedy.CANCEL, "Cancelled before it began.", alive, timedelta(0))
            if alive:
                why = f"Cancelled; its pod did not end within {END.seconds} s."
                return Mismatch(run, Remedy.CANCEL, why, alive, END)
            return Mismatch(run, Remedy.CANCEL, "Cancelled; its Job has ended.")
        if alive:
            known = run.infrastructure_pid == f"{alive.namespace}:{alive.name}"
            return None if known or not state.is_pending() else Mismatch(run, Remedy.REMEMBER, "", alive)
        if state.is_pending():
            # Jobs that have ended may be those of earlier tries: whoever makes this one's finds out.
            return Mismatch(run, Remedy.TAKE_OVER, "taken by a former worker, without a Job")
        ended = max((job for job in jobs if job.ended), key=lambda job: job.created, default=None)
        if ended:
            what = f"Its Job {ended.name} has ended without a word from the run: {ended.ended}"
            return Mismatch(run, Remedy.CRASH, f"{what}. Retry the run; it resumes.", ended)
        return Mismatch(run, Remedy.CRASH, "Its Job is gone from the cluster. Retry the run; it resumes.")
