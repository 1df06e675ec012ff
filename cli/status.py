"""``mlops status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tasks.durations import duration

if TYPE_CHECKING:
    from rich.table import Table

    from infra.stack.overview import Overview

STYLES = {
    **dict.fromkeys(("running", "Completed", "Running"), "green"),
    **dict.fromkeys(("silent", "Failed", "Crashed"), "red"),
    **dict.fromkeys(("Cancelled", "Cancelling", "Skipped", "Pending"), "yellow"),
}


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON document.")] = False,
) -> None:
    """What runs where, the last runs, the champion."""
    import json
    from dataclasses import asdict

    from cli.console import console
    from configs.home import home_folder
    from infra.stack.overview import overview

    seen = overview(home_folder())
    if as_json:
        print(json.dumps(asdict(seen), indent=2))
        return
    console.print(_parts(seen))
    for problem in seen.problems:
        console.print(problem, style="red", markup=False, soft_wrap=True)
    if all(part.state == "stopped" for part in seen.parts):
        console.print("\nNothing runs. `mlops up` starts it.")
        return
    console.print()
    console.print(_runs(seen) if seen.runs else "No runs yet.")
    console.print()
    console.print(_champions(seen) if seen.champions else "No champion yet.")


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number > 0, overflow="fold")
    return table


def _parts(seen: Overview) -> Table:
    table = _table("part", "state", "pid", "address", "up for", "memory")
    for part in seen.parts:
        table.add_row(
            part.name,
            _coloured(part.state),
            str(part.pid or ""),
            part.address or "",
            "" if part.uptime_s is None else duration(part.uptime_s),
            "" if part.memory is None else f"{part.memory / 2**20:.0f} MiB",
        )
    return table


def _runs(seen: Overview) -> Table:
    from datetime import datetime

    table = _table("last runs", "flow", "state", "began", "took")
    for run in seen.runs:
        began = datetime.fromisoformat(run.started).astimezone() if run.started else None
        table.add_row(
            run.name,
            run.flow,
            _coloured(run.state),
            f"{began:%Y-%m-%d %H:%M}" if began else "",
            duration(run.seconds) if began else "",
        )
    return table


def _champions(seen: Overview) -> Table:
    table = _table("champion", "version", "metrics")
    for champion in seen.champions:
        told = [f"{name} {value:.3f}" for name, value in sorted(champion.metrics.items()) if "mAP50" in name]
        table.add_row(champion.model, champion.version, ", ".join(told[:3]))
    return table


def _coloured(state: str) -> str:
    style = STYLES.get(state, "dim")
    return f"[{style}]{state}[/]"
