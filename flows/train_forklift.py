"""The main job: from a dataset version to a registered, reproducible detector."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.parameters import RecipeFile
from tasks.data import fetch_data
from tasks.job import open_job
from tasks.registry import find_champion, register
from tasks.report import report
from tasks.share import push_results
from tasks.stages import detect, evaluate, validate
from tasks.tracking import open_tracking
from tasks.train import train


@flow(name="train-forklift", description=__doc__)
def train_forklift(
    recipe: RecipeFile = "configs/forklift.yaml",
    force: Annotated[bool, Field(description="Train although nothing changed")] = False,
) -> None:
    """Fetch the data, run the graph, register the model, promote it if it is better, and report."""
    with open_job(recipe) as job, open_tracking(job) as tracking:
        fetch_data(job)
        validate(job)
        outcome = train(job, tracking, force=force)
        evaluate(job)
        detect(job)
        # The share and the tracker do not wait for each other.
        pushed = push_results.submit(job)
        champion = find_champion(job, tracking)
        registration = register(job, tracking, champion)
        pushed.result()
        report(job, tracking, outcome, champion, registration)
