"""The training itself: stage ``train`` with its progress in the run, in MLflow and in the terminal."""

from __future__ import annotations

import time
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from infra.repository.dvc import Outcome, stage_key
from infra.tracking.training import TRAIN_KEY
from tasks.checkpoints import shared_checkpoints
from tasks.job import Job
from tasks.stages import run_stage
from tasks.tracking import Tracking
from tasks.verbs import log, verb

ARTIFACT = "training"
"""Key of the artifact that shows how far a training is."""
EVERY_S = 5.0
"""Seconds between two updates of it within an epoch."""


@verb("train")
def train(job: Job, tracking: Tracking, *, force: bool) -> Outcome:
    """Train, or fetch what was trained before from the same code, data and parameters.

    A training that was killed goes on at its last whole epoch, in a pod also on another node.

    Args:
        force: train although nothing changed.

    Raises:
        StageError: the training failed.
    """
    progress = _Progress()

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


class _Progress:
    """The training's progress as an artifact of the run: a bar in the Prefect UI. Failing to show it is no error."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None
        self._done = self._epochs = 0
        self._told = 0.0

    def on_event(self, event: dict[str, Any]) -> None:
        if event["kind"] == "epoch":
            self._done, self._epochs = event["epoch"], event["epochs"]
            self._show(float(self._done), f"epoch {self._done} of {self._epochs}")
        elif event["kind"] == "progress" and self._epochs and time.monotonic() - self._told > EVERY_S:
            self._show(self._done + event["done"] / max(event["total"], 1), event["message"])

    def _show(self, epochs: float, said: str) -> None:
        percent = 100.0 * epochs / self._epochs
        self._told = time.monotonic()
        try:
            if self._artifact is None:
                self._artifact = cast(UUID, create_progress_artifact(percent, key=ARTIFACT, description=said))
            else:
                update_progress_artifact(self._artifact, percent, description=said)
        except Exception as error:  # the server may be away for a while, and whatever it says, training goes on
            log().debug("progress is not shown: %s", error)
