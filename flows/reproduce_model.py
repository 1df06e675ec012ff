"""Proof that a registered model can be made again."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.parameters import ModelName
from tasks.reproduce import reproduce_version
from tasks.verbs import say_errors_once


@flow(name="reproduce-model", description=__doc__)
def reproduce_model(
    model: ModelName = "forklift@champion",
    tolerance: Annotated[
        float, Field(ge=0, le=1, description="How far metrics may be off if the weights differ")
    ] = 0.02,
    keep: Annotated[bool, Field(description="Leave the worktree of the reproduction for a look")] = False,
) -> None:
    """Train a version again from its commit, data and environment in a worktree, and compare."""
    say_errors_once()
    reproduce_version(model, tolerance, keep=keep)
