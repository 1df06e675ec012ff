"""The training itself: stage ``train`` with its progress in the run, in MLflow and in the terminal."""

from __future__ import annotations

from typing import Any

from infra.repository.dvc import Outcome, stage_key
from infra.tracking.training import TRAIN_KEY
from tasks.checkpoints import shared_checkpoints
from tasks.job import Job
from tasks.progress import ProgressArtifact
from tasks.stages import run_stage
from tasks.tracking import Tracking
from tasks.verbs import verb


@verb("train")
def train(job: Job, tracking: Tracking, *, force: bool) -> Outcome:
    """Train, or fetch what was trained before from the same code, data and parameters.

    A training that was killed goes on at its last whole epoch, in a pod also on another node.

    Args:
        force: train although nothing changed.

    Raises:
        StageError: the training failed.
    """
    progress = ProgressArtifact()

    def on_event(event: dict[str, Any]) -> None:
        tracking.on_event(event)
        progress.on_event(event)
        if copies is not None and event["kind"] == "epoch":
            copies.epoch()

    with shared_checkpoints(job) as copies:
        outcome = run_stage(job, "train", force=force, on_event=on_event)
        if copies is not None:
            copies.finished()
    key = stage_key(job.root, "train") or ""
    if outcome is Outcome.RAN:
        tracking.open().tags({TRAIN_KEY: key})
    else:
        tracking.adopt(key)
        if tracking.run is not None:
            tracking.run.tags({TRAIN_KEY: key})
    return outcome
