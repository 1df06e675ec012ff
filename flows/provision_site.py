"""From bare machines to the site of configs/site.yaml: whatever differs is changed, and nothing else."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.site import provision


@flow(name="provision-site", description=__doc__)
def provision_site(
    keep: Annotated[bool, Field(description="Leave what a failed step has made new, as a VM; false: undo it")] = False,
) -> None:
    """Run every step on every machine, side by side where they do not wait for each other."""
    provision(keep=keep)
