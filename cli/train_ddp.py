"""``mlops train-ddp``: start a distributed training, watch it, and show what it came to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import OnOption, Where

CONFIG = "configs/ddp.yaml"


def train_ddp(
    config: Annotated[str, typer.Argument(help="What to train: a file below configs/.")] = CONFIG,
    on: OnOption = Where.LOCAL,
) -> None:
    """Train any torchrun script and register its model. Ctrl-C cancels; a later run goes on from its checkpoint."""
    from configs.ddp import load_ddp
    from configs.home import home_folder
    from infra.repository.code import find_root

    root = find_root(Path.cwd())
    load_ddp(config, root)  # mistakes are told here, before anything starts
    home = home_folder(root)

    from rich.console import Console

    from cli.running import run_flow

    raise typer.Exit(run_flow("train-ddp", {"config": config}, on, root, home, Console(), in_graph=False))
