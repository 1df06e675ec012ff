"""``mlops train``."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import ShareOption

if TYPE_CHECKING:
    from rich.console import Console

RECIPE = "configs/forklift.yaml"


class Where(StrEnum):
    """What runs the flow: this machine's stack, or the platform that `mlops platform connect` leads to."""

    LOCAL = "local"
    KUBERNETES = "kubernetes"


def train(
    recipe: Annotated[str, typer.Argument(help="The recipe: a file below configs/.")] = RECIPE,
    force: Annotated[bool, typer.Option(help="Train although nothing changed.")] = False,
    share: ShareOption = None,
    on: Annotated[Where, typer.Option("--on", help="Here, or in a pod of the connected cluster.")] = Where.LOCAL,
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
        _check_cluster(root, home, share, console)
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


def _check_cluster(root: Path, home: Path, share: str | None, console: Console) -> None:
    """Say what a pod will run, which is its image's code and not this checkout's.

    Raises:
        UserError: no platform is connected, or a share is chosen, which is the platform's to choose.
    """
    from configs.problems import Problem, UserError
    from infra.image.record import read_records
    from infra.repository.code import code_version
    from infra.stack.connection import load_connection

    problems = []
    if load_connection(home) is None:
        problems.append(Problem("--on kubernetes", "no platform is connected", "mlops platform connect"))
    if share is not None:
        remedy = "leave --share out; pods use that of configs/site.yaml (mlops platform apply)"
        problems.append(Problem("--share", "chooses a share for this checkout, not for pods", remedy))
    if problems:
        raise UserError(problems)
    code, images = code_version(root), read_records(home)
    if code.dirty or (images and images[-1].commit != code.commit):
        of = f" of commit {images[-1].commit[:12]}" if images else ""
        console.print(
            f"[yellow]The pod runs the code of its image{of}, not the changes since.[/yellow] "
            "`mlops build-image` and `mlops platform apply` bring them there.",
            soft_wrap=True,
        )
