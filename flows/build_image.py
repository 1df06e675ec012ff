"""The image that pods run: from exactly one commit to a digest in the site's registry."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.image import build, find_image, open_image, push_image, record_image


@flow(name="build-image", description=__doc__)
def build_image(
    dirty: Annotated[bool, Field(description="Take uncommitted changes of tracked files along")] = False,
    force: Annotated[bool, Field(description="Build although nothing changed, for a newer base image")] = False,
) -> None:
    """Ask the registry for it, build and push what it does not have, and let deployments use it."""
    with open_image(dirty=dirty) as image:
        found = find_image(image)
        if force or not found:
            build(image)
            push_image(image)
        record_image(image)
