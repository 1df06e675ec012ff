"""Shows what a run came to: artifacts in Prefect, ``reports/latest.md`` with pictures, a summary for the terminal."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from prefect.artifacts import Artifact, create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run

from infra.repository.code import data_tag
from infra.repository.dvc import Outcome, tracked_digest
from infra.tracking.registry import Registration
from infra.tracking.tracker import ChampionRef
from tasks.job import Job
from tasks.registry import METRICS, read_metrics
from tasks.summary import ARTIFACT, Summary, markdown
from tasks.tracking import Tracking
from tasks.verbs import log, verb

LATEST = Path("reports/latest.md")
PICTURES = {
    "Predictions": "reports/evaluate/plots/predictions.jpg",
    "Worst images": "reports/evaluate/plots/worst.jpg",
    "Precision and recall": "reports/evaluate/plots/pr.png",
    "F1 over confidence": "reports/evaluate/plots/f1.png",
    "Confusion matrix": "reports/evaluate/plots/confusion.png",
    "Detections": "reports/detect/preview.jpg",
    "Counts over time": "reports/detect/counts.png",
    "Dataset": "reports/validate/samples.jpg",
}


@verb("report")
def report(
    job: Job,
    tracking: Tracking,
    outcome: Outcome,
    champion: ChampionRef | None,
    registration: Registration | None,
) -> Summary:
    """Write the report of a finished run wherever people look for it."""
    summary = _summary(job, tracking, outcome, champion, registration)
    summary.save(job.folder)
    _write_latest(job, summary)
    publish_artifacts(tracking, summary)
    log().info("%s Report: %s", summary.verdict(), LATEST)
    return summary


def _summary(
    job: Job,
    tracking: Tracking,
    outcome: Outcome,
    champion: ChampionRef | None,
    registration: Registration | None,
) -> Summary:
    run, earlier = tracking.run, tracking.earlier
    digest = tracked_digest(job.root, job.data_file)
    model = f"{registration.name}/{registration.number}" if registration else earlier.model if earlier else ""
    rival = champion if champion is not None and f"{champion.name}/{champion.number}" != model else None
    return Summary(
        recipe=job.recipe_path,
        trained=outcome.value,
        commit=job.code.commit,
        dirty=job.code.dirty,
        data=digest,
        data_tag=data_tag(job.root, job.data_file, digest) or "",
        model=model,
        promoted=registration.promoted if registration else False,
        reason=registration.reason if registration else "",
        metrics=read_metrics(job.root / METRICS),
        champion=f"{rival.name}/{rival.number}" if rival else "",
        champion_metrics=rival.metrics if rival else {},
        run_url=(run.url if run else earlier.url if earlier else "") or "",
        flow_url=str(flow_run.ui_url or ""),
        pictures={title: path for title, path in PICTURES.items() if (job.root / path).is_file()},
    )


def _write_latest(job: Job, summary: Summary) -> None:
    """Write ``reports/latest.md`` with copies of its pictures beside it: git can hold those, but not DVC's."""
    folder = job.root / LATEST.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    addresses = {}
    for title, source in summary.pictures.items():
        name = Path(source).name
        shutil.copyfile(job.root / source, folder / name)
        addresses[title] = f"{folder.name}/{name}"
    (job.root / LATEST).write_text(markdown(summary, addresses), encoding="utf-8")


def publish_artifacts(tracking: Tracking, summary: Summary, metrics: str = "Test split, against the champion") -> None:
    """Attach report, metrics and links to the flow run. A Prefect server that is away for a moment fails no run."""
    run = tracking.run
    addresses = {}
    if run is not None and run.id is not None:
        uri = tracking.tracker.server.uri
        addresses = {
            title: f"{uri}/get-artifact?path={quote(path)}&run_uuid={run.id}"
            for title, path in summary.pictures.items()
        }
    headings, rows = summary.table()
    try:
        create_markdown_artifact(markdown(summary, addresses), key="report", description=summary.verdict())
        create_table_artifact(
            [dict(zip(headings, row, strict=True)) for row in rows],
            key="metrics",
            description=metrics,
        )
        Artifact(type="summary", key=ARTIFACT, description=summary.verdict(), data=asdict(summary)).create()
        if summary.run_url:
            create_link_artifact(summary.run_url, link_text="MLflow run", key="mlflow-run")
    except Exception as error:
        log().warning("the report is not shown in Prefect: %s", error)
