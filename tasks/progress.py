"""How far a training is, as an artifact of its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.verbs import log


class ProgressArtifact:
    """The training's progress as an artifact of the run: a bar in the Prefect UI. Failing to show it is no error."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None

    def on_event(self, event: Mapping[str, Any]) -> None:
        if event["kind"] != "epoch":
            return
        percent = 100.0 * event["epoch"] / event["epochs"]
        said = f"epoch {event['epoch']} of {event['epochs']}"
        try:
            if self._artifact is None:
                self._artifact = cast(UUID, create_progress_artifact(percent, key="training", description=said))
            else:
                update_progress_artifact(self._artifact, percent, description=said)
        except Exception as error:  # the server may be away for a while, and whatever it says, training goes on
            log().debug("progress is not shown: %s", error)
