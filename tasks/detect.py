"""A registered model on videos and images, outside the graph."""

from __future__ import annotations

import json
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from infra.repository.code import is_checkout
from infra.repository.share_files import open_files
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


@verb("fetch-source")
def fetch_source(job: Job, source: Path) -> None:
    """Pull the dataset into a pod that has to detect in a part of it; elsewhere its user has what he names.

    Raises:
        UserError, ShareError: the share does not have it, or does not answer.
    """
    below = source.is_relative_to(job.recipe.data.path)
    if below and not is_checkout(job.root) and not (job.root / source).exists():
        job.dvc.pull(job.data_file)


@verb("keep-results")
def keep_results(job: Job, folder: Path) -> None:
    """Copy the results that a pod made to ``detections/<run>`` in the share; elsewhere they stay where they are.

    Raises:
        OSError: the share cannot be written (tried again where that may pass).
    """
    if is_checkout(job.root) or job.share is None:
        return
    job.share.check()
    files = open_files(job.share)
    if files is None:
        log().warning("results are not kept: %s is no folder and no Samba share", job.share.address)
        return
    name = f"detections/{job.run_id}"
    files.put_folder(job.root / folder, name)
    log().info("results are in the share: %s/%s", job.share.address, name)


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
        *("--qp", str(settings.qp)),
    )
    summary = json.loads((job.root / folder / "summary.json").read_text(encoding="utf-8"))
    create_markdown_artifact(
        f"Results in `{folder}`\n\n```json\n{json.dumps(summary, indent=2)}\n```",
        key="detections",
        description=str(source),
    )
    log().info("results in %s", folder)
