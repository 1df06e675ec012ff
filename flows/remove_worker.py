"""A worker leaves the cluster: its pods go elsewhere, its kubelet stops, its node is deleted; what is on it stays."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.site_life import remove


@flow(name="remove-worker", description=__doc__)
def remove_worker(
    name: Annotated[str, Field(description="The machine, as configs/site.yaml names it")],
    typed: Annotated[str, Field(description="The name again: its pods will end")],
    force: Annotated[bool, Field(description="End also pods that nobody starts again, or that lose files")] = False,
    lost: Annotated[bool, Field(description="The machine is gone for good: nobody asks it anything")] = False,
    timeout_s: Annotated[int, Field(ge=1, description="Seconds to wait for pods to end")] = 300,
) -> None:
    """Drain, stop, delete, in this order."""
    remove(name, typed, force=force, lost=lost, timeout_s=timeout_s)
