"""``mlops train-ddp``: start a distributed training on the stack, watch it, and show what it came to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.train import Where

CONFIG = "configs/ddp.yaml"


def train_ddp(
    config: Annotated[str, typer.Argument(help="What to train: a file below configs/.")] = CONFIG,
    on: Annotated[Where, typer.Option("--on", help="Here, or in pods of the site's cluster.")] = Where.LOCAL,
) -> None:
    """Train any torchrun script and register its model. Ctrl-C cancels; a later run goes on from its checkpoint."""
    from configs.ddp import load_ddp
    from configs.home import home_folder
    from infra.repository.code import find_root
    from infra.stack.environment import client_environment

    root = find_root(Path.cwd())
    load_ddp(config, root)  # mistakes are told here, before anything starts
    home = home_folder(root)

    from rich.console import Console

    console = Console()
    if on is Where.KUBERNETES:
        from cli.cluster import use_cluster

        use_cluster(root, home, console)
    os.environ.update(client_environment(home))

    from cli.following import follow
    from cli.results import show, show_from_cluster

    run = follow(f"train-ddp/{on}", {"config": config}, home, console)
    if run.completed and on is Where.KUBERNETES:
        show_from_cluster(run, home, console)
    elif run.completed:
        show(run, home, console, report=str(Path(os.path.relpath(home, root)) / "runs" / str(run.id) / "report.md"))
    raise typer.Exit(run.exit_status)
