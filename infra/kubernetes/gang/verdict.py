"""Why a gang's Job failed, told by the rank that failed by itself, or by how the last worker was lost. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from configs.problems import Problem
from infra.ddp.failure import Transcript
from infra.ddp.launch import Gang
from infra.kubernetes.gang.manifests import RETRIED
from infra.kubernetes.gang.workers import Worker


def why_failed(
    gang: Gang,
    condition: Mapping[str, Any],
    ended: Sequence[Worker],
    losses: Sequence[str],
    transcripts: Mapping[str, Transcript],
) -> Problem:
    """Return the error of a gang.

    Args:
        condition: ``Failed`` of its Job.
        ended: pods that failed.
        losses: what is known of pods that are gone.
        transcripts: what pods printed, by uid.
    """
    by_itself = [worker for worker in ended if worker.exit_code not in (*RETRIED, None)]
    if by_itself:
        first = min(by_itself, key=lambda worker: _is_victim(transcripts.get(worker.uid)))
        transcript = transcripts.get(first.uid, Transcript())
        return transcript.problem(f"{gang.name}, {first}", first.exit_code or 0)
    if condition.get("reason") == "DeadlineExceeded":
        remedy = "raise cluster.training.deadline_s in the site file"
        return Problem(gang.name, "took longer than its deadline", remedy)
    lost = [*losses, *(f"{worker} {worker.end()}" for worker in ended)]
    if not lost:
        return Problem(gang.name, f"its Job failed: {condition.get('message', condition.get('reason', ''))}")
    remedy = "raise worker.memory" if any("memory" in worker.why for worker in ended) else "raise max_restarts"
    told = "\n".join(lost)
    return Problem(gang.name, f"lost workers more often than max_restarts ({gang.max_restarts}):\n{told}", remedy)


def _is_victim(transcript: Transcript | None) -> bool:
    """Whether a worker failed only because it lost another, as far as its log tells."""
    failures = transcript.failures() if transcript is not None else []
    return transcript is None or not failures or transcript.is_victim(failures[0])
