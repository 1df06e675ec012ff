"""A registered model on videos and images, outside the graph."""

from __future__ import annotations

import json
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from infra.tracking.access import mlflow_server, tracker_errors_for_people
from infra.tracking.download import download_model
from tasks.job import Job
from tasks.modules import run_module
from tasks.verbs import log, verb


@verb("fetch-model")
def fetch_model(job: Job, model: str) -> Path:
    """Return the folder with the files of a registered version, fetched once and checked against its manifest.

    Raises:
        UserError: no such version, or the tracker does not answer.
    """
    server = mlflow_server(job.home)
    with tracker_errors_for_people(server):
        fetched = download_model(server, model, job.home / "models")
    log().info("%s", fetched.version)
    return fetched.folder


@verb("detect")
def detect_in(job: Job, source: Path, model: Path, output: Path) -> None:
    """Detect in a video or a folder of images by the recipe's settings; results go below ``output``.

    Raises:
        UserError: the source cannot be read, with what would be right.
    """
    folder = output / source.stem
    settings = job.recipe.detect
    run_module(
        job,
        "ml.detect",
        str(source),
        *("--model", str(model / "openvino")),
        *("--out", str(folder)),
        *("--imgsz", str(settings.imgsz)),
        *("--conf", str(settings.conf)),
        *("--iou", str(settings.iou)),
        *("--crf", str(settings.crf)),
    )
    summary = json.loads((job.root / folder / "summary.json").read_text(encoding="utf-8"))
    create_markdown_artifact(
        f"Results in `{folder}`\n\n```json\n{json.dumps(summary, indent=2)}\n```",
        key="detections",
        description=str(source),
    )
    log().info("results in %s", folder)
