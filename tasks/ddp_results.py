"""What a distributed training came to: registered, judged by the configured metric, reported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from prefect.runtime import flow_run

from configs.problems import Problem, UserError
from infra.tracking.registry import Candidate, Registration
from infra.tracking.tracker import ChampionRef
from infra.tracking.training import DataVersion, flatten, user
from tasks.ddp import DdpJob
from tasks.registry import have_judged
from tasks.report import publish_artifacts
from tasks.summary import Summary, markdown
from tasks.tracking import Tracking, data_version, describe, track
from tasks.verbs import log, verb

METRICS = "metrics.json"
NO_DATA = DataVersion("none", "none")


def open_ddp_tracking(job: DdpJob) -> AbstractContextManager[Tracking]:
    """Track a distributed training, see :func:`tasks.tracking.track`."""
    data = data_version(job, job.gang.data.folder, job.gang.data.file) if job.gang.data else NO_DATA
    params = job.config.model_dump(mode="json")
    return track(
        Tracking(job.home, lambda: describe(job, name=job.config.name, params=params, data=data, file=job.config_path))
    )


@verb("register")
def register_output(job: DdpJob, tracking: Tracking) -> tuple[ChampionRef | None, Registration | None]:
    """Register what rank 0 left and have it judged by the configured metric; the better one is champion afterwards.

    Numbers of the same metric of the same model are compared, whatever they were taken on: that is the script's to
    keep comparable.

    Returns:
        The champion before, and the verdict; None for the verdict when the tracker is away: it is judged when it is
        back.

    Raises:
        UserError: rank 0 left no model, or a ``metrics.json`` that cannot be read.
    """
    files = {path.relative_to(job.output).as_posix(): path for path in _files(job.output)}
    if not files:
        what = "rank 0 left no file in the folder MLOPS_OUTPUT: there is nothing to register"
        raise UserError(Problem(job.config.script, what, "save the model there, and its numbers in metrics.json"))
    metrics = read_numbers(job.output / METRICS)
    champion = tracking.tracker.champion(job.config.name)
    run, rule = tracking.open(), job.config.promote
    run.metrics(metrics)
    if (job.output / METRICS).is_file():
        run.artifact(job.output / METRICS, METRICS)
    candidate = Candidate(
        name=job.config.name,
        metrics=metrics,
        metric=rule.metric,
        margin=rule.margin,
        test_split=f"{job.config.name}: {rule.metric}",
        by=user(),
        mode=rule.mode,
    )
    return champion, have_judged(run, files, candidate)


@verb("report")
def report_training(
    job: DdpJob, tracking: Tracking, champion: ChampionRef | None, registration: Registration | None
) -> Summary:
    """Write the report of a finished run into its folder and show it in Prefect."""
    metrics = read_numbers(job.output / METRICS)
    model = f"{registration.name}/{registration.number}" if registration else ""
    summary = Summary(
        recipe=job.config_path,
        trained="ran",
        commit=job.code.commit,
        dirty=job.code.dirty,
        data=job.gang.data.digest if job.gang.data else "none",
        data_tag="",
        model=model,
        promoted=registration.promoted if registration else False,
        reason=registration.reason if registration else "",
        metrics=metrics,
        champion=f"{champion.name}/{champion.number}" if champion else "",
        champion_metrics=champion.metrics if champion else {},
        run_url=(tracking.run.url if tracking.run else "") or "",
        flow_url=str(flow_run.ui_url or ""),
        pictures={},
        headline=tuple(metrics),
    )
    summary.save(job.folder)
    (job.folder / "report.md").write_text(markdown(summary, {}), encoding="utf-8")
    publish_artifacts(tracking, summary, metrics="What the script measured, against the champion")
    log().info("%s", summary.verdict())
    return summary


def read_numbers(path: Path) -> dict[str, float]:
    """Return the numbers of a script's ``metrics.json``, nested ones with dots; no file: none.

    Raises:
        UserError: it is no JSON object.
    """
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it is no object")
    except FileNotFoundError:
        return {}
    except ValueError as error:
        what = f"is no JSON object of numbers: {error}"
        raise UserError(Problem(METRICS, what, 'write one, as {"loss": 0.03}')) from None
    return {
        name: float(value)
        for name, value in flatten(values).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _files(output: Path) -> Iterator[Path]:
    """What is registered: all files but the numbers."""
    for path in sorted(output.rglob("*")):
        if path.is_file() and path.relative_to(output).as_posix() != METRICS:
            yield path
