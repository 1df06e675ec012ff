"""Shows in the terminal what a run of the main job came to."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from cli.following import FollowedRun
from infra.stack.connection import load_connection
from infra.stack.rest import prefect_client
from infra.stack.state import load_stack
from tasks.summary import ARTIFACT, Summary

NONE = "The run left no summary; see its log in the Prefect UI."


def show(run: FollowedRun, home: Path, console: Console, report: str, *, in_graph: bool) -> None:
    """Print the metrics, the model's name and version, the pictures' paths and the addresses of the two UIs."""
    summary = Summary.load(home / "runs" / str(run.id))
    if summary is None:
        console.print(NONE)
        return
    _table(summary, console, in_graph)
    for title, path in summary.pictures.items():
        console.print(f"  {title:<22} {path}", highlight=False)
    console.print(f"  {'Report':<22} {report}", highlight=False)
    stack = load_stack(home)
    if stack is not None:
        _addresses(summary.flow_url or stack.prefect_url, summary.run_url or stack.mlflow_url, console)


def show_from_cluster(run: FollowedRun, home: Path, console: Console, *, in_graph: bool) -> None:
    """Print the same of a run in a pod, whose files are in the tracker, and in the share if they are of DVC's graph."""
    summary = _fetch(run)
    if summary is None:
        console.print(NONE)
        return
    _table(summary, console, in_graph)
    where = "dvc repro --pull brings them here, without training" if in_graph else "in the MLflow run, with all logs"
    console.print(f"  {'Model and reports' if in_graph else 'Model':<22} {where}", highlight=False)
    connection = load_connection(home)
    if connection is not None:
        run_url = _seen_from_here(summary.run_url, connection.mlflow_url)
        _addresses(f"{connection.prefect_url}/runs/flow-run/{run.id}", run_url, console)


def _fetch(run: FollowedRun) -> Summary | None:
    wanted = {"flow_run_id": {"any_": [str(run.id)]}, "key": {"any_": [ARTIFACT]}}
    found = prefect_client("/artifacts/filter", {"artifacts": wanted})
    return Summary.from_json(str(found[-1]["data"])) if found else None


def _table(summary: Summary, console: Console, in_graph: bool) -> None:
    headings, rows = summary.table()
    table = Table(headings[0], title="Test split" if in_graph else "Metrics", title_justify="left")
    for heading in headings[1:]:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(f"[bold]{summary.verdict()}[/bold]")
    console.print()


def _addresses(prefect: str, mlflow: str, console: Console) -> None:
    console.print(f"  {'Prefect UI':<22} {prefect}", highlight=False, soft_wrap=True)
    console.print(f"  {'MLflow UI':<22} {mlflow}", highlight=False, soft_wrap=True)


def _seen_from_here(url: str, base: str) -> str:
    """Return an address of a server's page as pods know it, with the server as this machine knows it."""
    parts = urlsplit(url)
    return base + url.partition(parts.netloc)[2] if parts.netloc else base
