"""``mlops train``: start the main job on the stack, watch it, and show what it came to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.options import ShareOption

RECIPE = "configs/forklift.yaml"
DEPLOYMENT = "train-forklift/local"


def train(
    recipe: Annotated[str, typer.Argument(help="The recipe: a file below configs/.")] = RECIPE,
    force: Annotated[bool, typer.Option(help="Train although nothing changed.")] = False,
    share: ShareOption = None,
) -> None:
    """Train, judge, register: run the main job with live progress. Ctrl-C cancels; a later run goes on from there."""
    from configs.home import home_folder
    from configs.recipe import load_recipe
    from infra.repository.code import find_root
    from infra.stack.environment import client_environment

    root = find_root(Path.cwd())
    load_recipe(root / recipe)  # mistakes are told here, before anything starts
    home = home_folder(root)

    from rich.console import Console

    from cli.sharing import use_share

    console = Console()
    use_share(share, root, home, console)
    os.environ.update(client_environment(home))

    from cli.following import follow
    from cli.results import show

    run = follow(DEPLOYMENT, {"recipe": recipe, "force": force}, home, console)
    if run.completed:
        show(run, root, home, console)
    raise typer.Exit(run.exit_status)
