"""``mlops down``."""

from __future__ import annotations


def down() -> None:
    """Stop the stack; data, models and settings stay."""
    from cli.console import console, live_progress
    from configs.home import home_folder
    from infra.stack.state import MLFLOW, PREFECT, WORKER
    from infra.stack.stop import down as stop

    with live_progress((WORKER, PREFECT, MLFLOW)) as progress:
        stopped = stop(home_folder(), progress.report)
    if not (progress.lines or progress.notes):
        console.print("Nothing was running.")
    for name in stopped:
        console.print(f"Run {name} was stopped; retry it or start it again, and it goes on from its checkpoint.")
