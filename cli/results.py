"""Shows in the terminal what a run of the main job came to."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from cli.following import FollowedRun
from infra.stack.state import load_stack
from tasks.summary import Summary


def show(run: FollowedRun, root: Path, home: Path, console: Console) -> None:
    """Print the metrics, the model's name and version, the pictures' paths and the addresses of the two UIs."""
    summary = Summary.load(home / "runs" / str(run.id))
    if summary is None:
        console.print("The run left no summary; see its log in the Prefect UI.")
        return
    headings, rows = summary.table()
    table = Table(headings[0], title="Test split", title_justify="left")
    for heading in headings[1:]:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(f"[bold]{summary.verdict()}[/bold]")
    console.print()
    for title, path in summary.pictures.items():
        console.print(f"  {title:<22} {path}", highlight=False)
    console.print(f"  {'Report':<22} reports/latest.md", highlight=False)
    stack = load_stack(home)
    if stack is not None:
        console.print(f"  {'Prefect UI':<22} {summary.flow_url or stack.prefect_url}", highlight=False, soft_wrap=True)
        console.print(f"  {'MLflow UI':<22} {summary.run_url or stack.mlflow_url}", highlight=False, soft_wrap=True)
