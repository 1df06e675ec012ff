"""Looks for what differs from configs/site.yaml: changed files, dead services, full disks, machines that moved."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.site import check


@flow(name="check-site", description=__doc__)
def check_site(
    repair: Annotated[bool, Field(description="Mend what is safe to mend; false: only report")] = True,
) -> None:
    """Read all machines, mend what is safe, and fail with the rest."""
    check(repair=repair)
