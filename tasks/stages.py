"""The stages of the graph as Prefect tasks: DVC decides whether each runs, is fetched, or is left as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from infra.events import EventReader
from infra.repository.dvc import Outcome
from tasks.events import told
from tasks.job import Job
from tasks.verbs import log, verb

OnEvent = Callable[[dict[str, Any]], None]


def _forced(force: bool) -> dict[str, str]:
    """Tell a stage that it is to work although it knows a finished result of the same inputs."""
    return {"MLOPS_FORCE": "1"} if force else {}


_TOLD = {
    Outcome.RAN: "done",
    Outcome.FETCHED: "not run: made earlier from the same code, data and parameters, fetched from the run cache",
    Outcome.UNCHANGED: "nothing changed",
}


@verb("validate")
def validate(job: Job) -> Outcome:
    """Check the dataset; stops above the recipe's share of faulty files."""
    return run_stage(job, "validate")


@verb("evaluate")
def evaluate(job: Job) -> Outcome:
    """Judge the weights on the test split and export them."""
    return run_stage(job, "evaluate")


@verb("detect")
def detect(job: Job) -> Outcome:
    """Show the exported model on the recipe's video or pictures."""
    return run_stage(job, "detect")


def run_stage(job: Job, stage: str, *, force: bool = False, on_event: OnEvent = lambda event: None) -> Outcome:
    """Bring a stage up to date through DVC and log its events while it runs.

    Raises:
        StageError: its command failed; the error is what it said last.
    """
    events = EventReader(job.events)

    def follow() -> None:
        for event in events.new():
            if (line := told(event)) is not None:
                log().info("%s: %s", stage, line)
            on_event(event)

    outcome = job.dvc.reproduce(
        stage,
        force=force,
        env=job.stage_environment() | _forced(force),
        on_line=lambda line: log().debug("%s", line),
        on_tick=follow,
    )
    log().info("%s: %s", stage, _TOLD[outcome])
    return outcome
