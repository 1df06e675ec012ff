"""A machine of configs/site.yaml becomes a worker of the cluster; its other machines are left alone."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.site_life import add


@flow(name="add-worker", description=__doc__)
def add_worker(name: Annotated[str, Field(description="The machine, as configs/site.yaml names it")]) -> None:
    """Run the machine's steps, let it join, and wait until its node is ready."""
    add(name)
