"""The model registry: a version for what was trained, judged against the champion on the same test split."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.problems import UserError
from infra.tracking.download import download_model
from infra.tracking.entities import TrackerError
from infra.tracking.registry import Candidate, Registration
from infra.tracking.tracker import ChampionRef, TrainingRun
from infra.tracking.training import flatten, user
from tasks.job import Job
from tasks.modules import run_module
from tasks.tracking import Tracking, test_split
from tasks.verbs import log, verb

MODEL_FILES = ("model.pt", "model.onnx", "openvino")
METRICS = "reports/evaluate/metrics.json"
ARTIFACTS = ("dvc.lock", "reports")


@verb("compare-with-champion")
def find_champion(job: Job, tracking: Tracking) -> ChampionRef | None:
    """Return the champion with its metrics on today's test split, evaluated again where they are from another."""
    champion = tracking.tracker.champion(job.recipe.name)
    if champion is None or champion.test_split == test_split(job):
        return champion
    log().info("%s/%d was judged on another test split: it is evaluated on this one", champion.name, champion.number)
    try:
        metrics = _evaluate_again(job, tracking, champion)
    except (UserError, TrackerError) as error:
        log().warning("the champion cannot be evaluated again: %s", error)
        return champion
    return ChampionRef(champion.name, champion.number, metrics, test_split(job), champion.url)


@verb("register")
def register(job: Job, tracking: Tracking, champion: ChampionRef | None) -> Registration | None:
    """Register what was trained and have it judged; the better one is champion afterwards.

    Returns:
        The verdict; None when nothing new was trained, or when the tracker is away (it is judged when it is back).
    """
    run = tracking.run
    if run is None:
        return None
    metrics = read_metrics(job.root / METRICS)
    run.metrics(metrics)
    for name in ARTIFACTS:
        run.artifact(job.root / name, name)
    comparable = champion is not None and champion.test_split == test_split(job)
    candidate = Candidate(
        name=job.recipe.name,
        metrics=metrics,
        metric=job.recipe.promote.metric,
        margin=job.recipe.promote.margin,
        test_split=test_split(job),
        by=user(),
        champion=champion.number if champion is not None and comparable else None,
        champion_metrics=champion.metrics if champion is not None and comparable else None,
    )
    return have_judged(run, {name: job.root / "models" / name for name in MODEL_FILES}, candidate)


def have_judged(run: TrainingRun, files: Mapping[str, Path], candidate: Candidate) -> Registration | None:
    """Register files (by their path in the version) and say the verdict; None when the tracker is away."""
    run.register(files, candidate)
    registration = run.registration()
    if registration is None:
        log().warning("the tracker does not answer: the model is registered and judged when it is back")
    else:
        log().info("%s/%d: %s", registration.name, registration.number, registration.reason)
    return registration


def read_metrics(path: Path) -> dict[str, float]:
    """Read the test metrics: numbers from 0 to 1 by name, per class as ``mAP50/forklift``."""
    values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    flat = flatten({name: values[name] for name in ("mAP50", "mAP50-95", "precision", "recall")} | {}, "/")
    for name, numbers in values["classes"].items():
        flat |= {f"{metric}/{name}": number for metric, number in numbers.items()}
    return {name: float(value) for name, value in flat.items()}


def _evaluate_again(job: Job, tracking: Tracking, champion: ChampionRef) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="champion-", dir=job.folder) as scratch:
        folder = Path(scratch)
        model = download_model(tracking.tracker.server, f"{champion.name}/{champion.number}", job.home / "models")
        run_module(
            job,
            "ml.evaluate",
            *("--recipe", job.recipe_path),
            *("--model", str(model.folder / "model.pt")),
            *("--only-metrics", str(folder / "metrics.json")),
        )
        return read_metrics(folder / "metrics.json")
