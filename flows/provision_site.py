"""From bare machines to the site of configs/site.yaml: whatever differs is changed, and nothing else."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.apply_platform import apply_platform
from flows.build_image import build_image
from tasks.site import builds_image, open_cluster, provision
from tasks.site import smoke as train_something_small


@flow(name="provision-site", description=__doc__)
def provision_site(
    keep: Annotated[bool, Field(description="Leave what a failed step has made new, as a VM; false: undo it")] = False,
    smoke: Annotated[bool, Field(description="Train something small on the cluster at the end")] = False,
) -> None:
    """Run every step on every machine; then, on a cluster, bring the platform, and train something to see it work."""
    provision(keep=keep)
    if open_cluster(needed=smoke):
        if builds_image():
            build_image()
        apply_platform()
        if smoke:
            train_something_small()
