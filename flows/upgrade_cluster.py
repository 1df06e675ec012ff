"""To a newer Kubernetes, at most one minor version: a snapshot, the control plane, then each worker, one at a time."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.site_life import upgrade


@flow(name="upgrade-cluster", description=__doc__)
def upgrade_cluster(
    version: Annotated[
        str,
        Field(
            pattern=r"^(v?\d+\.\d+\.\d+)?$",
            description="A release, as 1.34.9, which configs/site.yaml says from then on; empty: the one that it says",
        ),
    ] = "",
    force: Annotated[bool, Field(description="End also pods that nobody starts again")] = False,
    timeout_s: Annotated[int, Field(ge=1, description="Seconds to wait for the pods of a node to end")] = 300,
) -> None:
    """Look whether it can be done, and do it; run again, it goes on where it was, and a last time it does nothing."""
    upgrade(version, force=force, timeout_s=timeout_s)
