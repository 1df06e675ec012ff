"""The platform on the Kubernetes cluster of configs/site.yaml: installed, or brought up to date."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.platform import bring_up


@flow(name="apply-platform", description=__doc__)
def apply_platform(
    image: Annotated[
        str | None, Field(description="Run this image instead of the site's or the last that was built")
    ] = None,
    force: Annotated[bool, Field(description="Take over fields that somebody else has changed")] = False,
) -> None:
    """Apply the manifests, wait until all components work, register pool, deployments and automations."""
    bring_up(image, force=force)
