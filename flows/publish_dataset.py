"""A user's images become the next version of the dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.parameters import RecipeFile
from tasks.job import open_job
from tasks.publish import announce, import_source, publish, validate_folder


@flow(name="publish-dataset", description=__doc__)
def publish_dataset(
    source: Annotated[str, Field(min_length=1, description="Folder or zip: YOLO, Roboflow export or COCO JSON")],
    recipe: RecipeFile = "configs/forklift.yaml",
    rename: Annotated[
        dict[str, str] | None, Field(description='Class names of the source to the recipe\'s; "" drops a class')
    ] = None,
    message: Annotated[str, Field(description="What the commit says about this version")] = "",
) -> None:
    """Read, check, version, push and announce a dataset."""
    with open_job(recipe, select=False) as job:
        path = Path(source).expanduser()
        staged = import_source(job, path, rename or {})
        validate_folder(job, staged)
        version = publish(job, staged, path, message)
        if version.new:
            announce(job, version)
