"""The MLflow run of a training: opened when the training really starts, closed with whatever became of the flow."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from prefect.runtime import flow_run

from infra.repository.code import data_tag
from infra.repository.dvc import tracked_digest
from infra.tracking.access import mlflow_server
from infra.tracking.machine import machine_facts
from infra.tracking.tracker import RunRef, Tracker, TrainingRun
from infra.tracking.training import DataVersion, Training
from tasks.job import Job, Place
from tasks.verbs import log

HISTORY = "reports/train/history.csv"


class Tracking:
    """What the tracker knows of this job: a run of its own, or the earlier run of the same training.

    Attributes:
        run: the run opened by this job, None when nothing was trained and an earlier run is known.
        earlier: the run that trained the same before.
    """

    def __init__(self, home: Path, describe: Callable[[], Training], history: Path | None = None) -> None:
        """Track into the server of the state folder ``home``.

        Args:
            describe: what is trained from what; asked when the run is opened.
            history: the table of epochs of a training that was fetched instead of run.
        """
        self._describe, self._history = describe, history
        self.tracker = Tracker(mlflow_server(home), home)
        self.run: TrainingRun | None = None
        self.earlier: RunRef | None = None
        self.registered = False

    def open(self) -> TrainingRun:
        """Open this job's run, once."""
        if self.run is None:
            self.run = self.tracker.start(self._describe())
        return self.run

    def adopt(self, train_key: str) -> None:
        """Point to the earlier run of the same training; where it is unknown here, open one that holds its results."""
        self.earlier = self.tracker.find_training(self._describe().name, train_key)
        if self.earlier is not None and self.earlier.model:
            log().info("the same was trained before: run %s, model %s", self.earlier.name, self.earlier.model)
            return
        self.earlier = None
        run = self.open()
        run.tags({"mlops.trained": "elsewhere: fetched from the run cache"})
        for epoch, metrics in read_history(self._history) if self._history else ():
            run.epoch(epoch, metrics)

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Hand a training's events on; the first opens the run."""
        run = self.open()
        if event["kind"] == "epoch":
            run.epoch(event["epoch"], event["metrics"])
        elif event["kind"] == "note" and event.get("params"):
            run.params(event["params"])


def open_tracking(job: Job) -> AbstractContextManager[Tracking]:
    """Track a run of the main job, see :func:`track`."""
    return track(Tracking(job.home, lambda: _training(job), job.root / HISTORY))


@contextmanager
def track(tracking: Tracking) -> Iterator[Tracking]:
    """Track a job; its run, if one was opened, ends as FINISHED, FAILED or KILLED. A tracker that is away is no error.

    What could not be sent by earlier runs is sent first.
    """
    for line in tracking.tracker.send_pending():
        log().info("%s", line)
    try:
        yield tracking
    except Exception:
        _finish(tracking, "FAILED")
        raise
    except BaseException:  # cancelled, interrupted or ended by a signal
        _finish(tracking, "KILLED")
        raise
    _finish(tracking, "FINISHED")


def test_split(job: Job) -> str:
    """Return what metrics are comparable on: a digest of the dataset and of how it is judged."""
    rules = {
        "data": tracked_digest(job.root, job.data_file),
        "classes": job.recipe.data.classes,
        "evaluate": job.recipe.evaluate.model_dump(mode="json", include={"imgsz", "iou"}),
    }
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:16]


def read_history(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the epochs of ``history.csv``: number from 1, and its numbers by name."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield int(row.pop("epoch")), {name: float(value) for name, value in row.items() if value}


def _finish(tracking: Tracking, status: str) -> None:
    if tracking.run is not None and not tracking.run.finish(status):
        log().warning("the tracker has not got everything yet: what is missing is kept and sent with the next run")


def _training(job: Job) -> Training:
    return describe(
        job,
        name=job.recipe.name,
        params=job.recipe.model_dump(mode="json"),
        data=data_version(job, str(job.recipe.data.path), job.data_file),
        file=job.recipe_path,
    )


def describe(place: Place, *, name: str, params: Mapping[str, Any], data: DataVersion, file: str) -> Training:
    """Describe a training of this flow run.

    Args:
        name: of experiment and model.
        params: the whole ``file``: what a user wrote.
    """
    return Training(
        id=place.run_id,
        name=name,
        title=str(flow_run.name or "training"),
        params=params,
        code=place.code,
        data=data,
        machine=machine_facts(),
        lock_sha256=hashlib.sha256((place.root / "requirements.lock").read_bytes()).hexdigest(),
        flow=str(flow_run.flow_name or ""),
        flow_run_id=place.run_id,
        flow_run_url=str(flow_run.ui_url or ""),
        files={file: place.root / file},
    )


def data_version(place: Place, name: str, data_file: str) -> DataVersion:
    """Describe the version of the dataset that a ``.dvc`` file names."""
    digest = tracked_digest(place.root, data_file)
    return DataVersion(
        name=name,
        digest=digest,
        remote=place.share.address if place.share else "",
        tag=data_tag(place.root, data_file, digest) or "",
    )
