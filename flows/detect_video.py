"""A registered model on any video or folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.parameters import ModelName, RecipeFile
from tasks.detect import detect_in, fetch_model, fetch_source, keep_results
from tasks.job import open_job


@flow(name="detect-video", description=__doc__)
def detect_video(
    source: Annotated[
        str, Field(min_length=1, description="A video, or a folder of images")
    ] = "data/video/warehouse.mp4",
    model: ModelName = "forklift@champion",
    output: Annotated[str, Field(min_length=1, description="Folder of the results")] = "detections",
    recipe: RecipeFile = "configs/forklift.yaml",
) -> None:
    """Fetch the model, detect, and leave an annotated video with its tables and plots."""
    with open_job(recipe, select=False, share=False) as job:
        path, results = Path(source).expanduser(), Path(output).expanduser()
        folder = fetch_model(job, model)
        fetch_source(job, path)
        detect_in(job, path, folder, results)
        keep_results(job, results)
