"""``mlops train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import OnOption, ShareOption, Where

RECIPE = "configs/forklift.yaml"


def train(
    recipe: Annotated[str, typer.Argument(help="The recipe: a file below configs/.")] = RECIPE,
    force: Annotated[bool, typer.Option(help="Train although nothing changed.")] = False,
    share: ShareOption = None,
    on: OnOption = Where.LOCAL,
) -> None:
    """Train, judge, register: run the main job with live progress. Ctrl-C cancels; a later run goes on from there."""
    from configs.home import home_folder
    from configs.recipe import load_recipe
    from infra.repository.code import find_root

    root = find_root(Path.cwd())
    load_recipe(root / recipe)  # mistakes are told here, before anything starts
    home = home_folder(root)

    from rich.console import Console

    from cli.running import run_flow

    console = Console()
    if on is Where.KUBERNETES:
        _no_share(share)
    else:
        from cli.sharing import use_share

        use_share(share, root, home, console)
    parameters = {"recipe": recipe, "force": force}
    raise typer.Exit(run_flow("train-forklift", parameters, on, root, home, console, in_graph=True))


def _no_share(share: str | None) -> None:
    from configs.problems import Problem, UserError

    if share is not None:
        remedy = "leave --share out; pods use that of configs/site.yaml (mlops platform apply)"
        raise UserError(Problem("--share", "chooses a share for this checkout, not for pods", remedy))
