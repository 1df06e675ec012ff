"""``mlops reproduce``: train a registered model again in a worktree, and show the evidence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def reproduce(
    model: Annotated[str, typer.Argument(help="forklift@champion, forklift/3 or a run's id.")],
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="How far a metric may be off where the weights are not identical.")
    ] = 0.02,
    keep: Annotated[bool, typer.Option(help="Leave the worktree for a look.")] = False,
) -> None:
    """Make a model again from its commit, data and environment. Ends 0 when it is the same, 1 when it is not."""
    from rich.console import Console
    from rich.table import Table

    from configs.home import home_folder
    from infra.repository.git import find_root
    from infra.reproduction import reproduce as run
    from infra.stack.environment import QUIET
    from infra.tracking.access import mlflow_server, tracker_errors_for_people

    os.environ.update(QUIET)
    console = Console()
    root = find_root(Path.cwd())
    home = home_folder(root)
    server = mlflow_server(home)
    with tracker_errors_for_people(server), console.status("training again"):
        result = run(
            server,
            model,
            root,
            home,
            tolerance=tolerance,
            keep=keep,
            say=lambda line: console.print(line, style="dim", markup=False, highlight=False),
        )
    table = Table("evidence", "original", "again", "same")
    for row in result.evidence:
        mark = {True: "[green]yes[/green]", False: "[red]no[/red]", None: "yes" if row.original == row.again else "no"}
        table.add_row(row.what, row.original, row.again, mark[row.holds])
    console.print(table)
    console.print(f"[bold]{result.verdict()}[/bold]")
    if result.folder:
        console.print(f"The worktree is {result.folder}; git worktree remove takes it away.")
    raise typer.Exit(0 if result.succeeded else 1)
