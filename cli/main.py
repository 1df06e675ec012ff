"""The ``mlops`` command: each subcommand is the function of its name in ``cli/<name>.py``, imported when called.

``build-image`` is ``build_image`` there.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable

import typer

from configs.problems import run_main

# A new subcommand is one line here and one file.
COMMANDS = {
    "up": "Start the embedded stack: Prefect, MLflow, a worker and the deployments.",
    "down": "Stop the stack; data, models and settings stay.",
    "status": "What runs where, the last runs, the champion.",
    "doctor": "Check everything the stack needs; says what is broken and how to mend it.",
    "diagnose": "Why a run failed or does not begin, and what to do.",
    "train": "Run the main job and watch it: from the dataset to a registered model.",
    "train-ddp": "Train any torchrun script over several processes, and watch it.",
    "build-image": "Build the image that pods run from this commit, and push it to the site's registry.",
    "lineage": "Which commit, data, parameters and environment made a model.",
    "reproduce": "Make a model again in a checkout of its own and compare.",
    "platform": "Prefect, MLflow, Postgres and a worker on the Kubernetes cluster of configs/site.yaml.",
    "site": "The machines of configs/site.yaml: what differs from it, and making them so.",
    "rollback": "Give the champion's place back to the previous model.",
}


def main() -> None:
    """Run the command line and leave the process."""
    run_main(lambda: application(sys.argv[1:])())


def application(arguments: list[str]) -> typer.Typer:
    """The command line; of its subcommands only the one that ``arguments`` name is imported."""
    app = typer.Typer(
        help="MLOps on machines of one's own: a thin command over its parts.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_together)
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, text in COMMANDS.items():
        if importlib.util.find_spec(f"cli.{_module(name)}"):
            loaded = _load(name) if name == wanted else _not_called
            if isinstance(loaded, typer.Typer):
                app.add_typer(loaded, name=name, help=text)
            else:
                app.command(name, help=text)(loaded)
    return app


def _load(name: str) -> Callable[..., None]:
    module = _module(name)
    function: Callable[..., None] = getattr(importlib.import_module(f"cli.{module}"), module)
    return function


def _module(name: str) -> str:
    return name.replace("-", "_")


def _together() -> None:
    """Without a callback an application of one subcommand would be that subcommand."""


def _not_called() -> None:
    """Stands for a subcommand in the list of all, without importing it."""


if __name__ == "__main__":
    main()
