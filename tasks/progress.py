"""How far a training is, as an artifact of its run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.summary import PROGRESS
from tasks.verbs import log

EVERY_S = 5.0
"""Seconds between two updates of it within an epoch."""


class ProgressArtifact:
    """The training's progress as an artifact of the run: a bar in the Prefect UI. Failing to show it is no error."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None
        self._done = self._epochs = 0
        self._told = 0.0

    def on_event(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "epoch":
            self._done, self._epochs = event["epoch"], event["epochs"]
            self._show(float(self._done), f"epoch {self._done} of {self._epochs}")
        elif event["kind"] == "progress" and self._epochs and time.monotonic() - self._told > EVERY_S:
            self._show(self._done + event["done"] / max(event["total"], 1), event.get("message", ""))

    def _show(self, epochs: float, said: str) -> None:
        percent = 100.0 * epochs / self._epochs
        self._told = time.monotonic()
        try:
            if self._artifact is None:
                self._artifact = cast(UUID, create_progress_artifact(percent, key=PROGRESS, description=said))
            else:
                update_progress_artifact(self._artifact, percent, description=said)
        except Exception as error:  # the server may be away for a while, and whatever it says, training goes on
            log().debug("progress is not shown: %s", error)
