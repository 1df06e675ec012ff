"""Runs a module of :mod:`ml` in a process of its own: heavy imports stay out of the flow, and a cancel ends it."""

from __future__ import annotations

import sys
from pathlib import Path

from configs.problems import Problem, UserError, printed_error
from infra.events import EventReader
from infra.process import run_guarded
from tasks.events import told
from tasks.job import Place
from tasks.verbs import log

SHOWN = 40
"""Last lines of a failing module that make its error where it does not name one."""


def run_module(job: Place, module: str, *arguments: str, below: Path | None = None) -> list[str]:
    """Run ``python -m module arguments`` in the checkout, with its events in the run's log, and return what it printed.

    Args:
        below: a folder of ours whose path is left out of what is shown.

    Raises:
        UserError: it failed; the error is what it said.
    """
    lines: list[str] = []
    events = EventReader(job.events)

    def follow() -> None:
        for event in events.new():
            if (line := told(event)) is not None:
                log().info("%s", line)

    status = run_guarded(
        [sys.executable, "-m", module, *arguments],
        cwd=job.root,
        env=job.process_environment(),
        on_line=lines.append,
        on_tick=follow,
    )
    if status:
        said = (
            "\n".join(printed_error(lines) or lines[-SHOWN:]).replace(f"{below}/", "").strip()
            or f"ended with status {status}"
        )
        raise UserError(Problem(f"python -m {module}", f"\n{said}"))
    for line in lines:
        log().debug("%s", line)
    return lines
