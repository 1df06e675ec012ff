"""``mlops train``."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.options import ShareOption

RECIPE = "configs/forklift.yaml"


class Where(StrEnum):
    """What runs the flow: this machine's stack, or the platform on the site's cluster."""

    LOCAL = "local"
    KUBERNETES = "kubernetes"


def train(
    recipe: Annotated[str, typer.Argument(help="The recipe: a file below configs/.")] = RECIPE,
    force: Annotated[bool, typer.Option(help="Train although nothing changed.")] = False,
    share: ShareOption = None,
    on: Annotated[Where, typer.Option("--on", help="Here, or in a pod of the site's cluster.")] = Where.LOCAL,
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

    console = Console()
    if on is Where.KUBERNETES:
        from cli.cluster import use_cluster

        _no_share(share)
        use_cluster(root, home, console)
    else:
        from cli.sharing import use_share

        use_share(share, root, home, console)
    os.environ.update(client_environment(home))

    from cli.following import follow
    from cli.results import show, show_from_cluster

    run = follow(f"train-forklift/{on}", {"recipe": recipe, "force": force}, home, console)
    if run.completed and on is Where.KUBERNETES:
        show_from_cluster(run, home, console)
    elif run.completed:
        show(run, home, console)
    raise typer.Exit(run.exit_status)


def _no_share(share: str | None) -> None:
    from configs.problems import Problem, UserError

    if share is not None:
        remedy = "leave --share out; pods use that of configs/site.yaml (mlops platform apply)"
        raise UserError(Problem("--share", "chooses a share for this checkout, not for pods", remedy))
