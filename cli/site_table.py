"""The site in the terminal: a live table, machine by step, and what differs like a diff."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from cli.console import console
from infra.site.engine import ENDED, Key, Outcome, State
from infra.site.step import Change, Step

MARKS = {
    State.FITS: Text("✓", style="green"),
    State.CHANGED: Text("✓", style="bold green"),
    State.DIFFERS: Text("≠", style="yellow"),
    State.FAILED: Text("✗", style="bold red"),
    State.LEFT_OUT: Text("-", style="dim"),
    State.WAITING: Text("·", style="dim"),
}
_SHOWN = 160


class SiteTable:
    """A row for each machine, a column for each step; below it what each machine does now. Filled from threads."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._machines = list(dict.fromkeys(step.machine for step in steps))
        self._names = list(dict.fromkeys(step.name for step in steps))
        self._cells = {(step.machine, step.name): (State.WAITING, "", 0.0, 0.0) for step in steps}
        self._lock = threading.Lock()
        self._spinner = Spinner("dots")

    def report(self, step: Step, state: State, detail: str) -> None:
        """As :data:`infra.site.engine.Report`."""
        now = time.monotonic()
        key = (step.machine, step.name)
        with self._lock:
            before, _, began, _ = self._cells[key]
            self._cells[key] = (state, detail, began or now, now)
        # An applying step says every line of its commands: in a log each is worth one.
        if not console.is_terminal and (state in ENDED or (state, before) == (State.APPLYING, State.READING)):
            console.print(Text(f"{step.machine}: {step.name}: {state} {detail}".rstrip()), soft_wrap=True)

    def __rich__(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("machine", no_wrap=True)
        for name in self._names:
            table.add_column(name, no_wrap=True)
        now: list[Text] = []
        with self._lock:
            cells = dict(self._cells)
        for machine in self._machines:
            row: list[RenderableType] = [machine]
            for name in self._names:
                cell = cells.get((machine, name))
                row.append("" if cell is None else self._cell(*cell))
                if cell is not None and cell[0] is State.APPLYING:
                    now.append(Text(f"{machine}: {name}: {cell[1]}"[:_SHOWN], style="dim"))
            table.add_row(*row)
        return Group(table, *now)

    def _cell(self, state: State, _detail: str, began: float, seen: float) -> RenderableType:
        if state is State.WAITING:
            return MARKS[state]
        if state in ENDED:
            return Text.assemble(MARKS[state], (f" {seen - began:.1f} s", "dim"))
        grid = Table.grid(padding=(0, 1))
        grid.add_row(self._spinner, Text(f"{time.monotonic() - began:.0f} s", style="dim"))
        return grid


@contextmanager
def live_site(steps: Sequence[Step]) -> Iterator[SiteTable]:
    """Show a :class:`SiteTable` while the block runs; plain lines where the output is no terminal."""
    table = SiteTable(steps)
    if not console.is_terminal:
        yield table
        return
    with Live(table, console=console, refresh_per_second=8):
        yield table


def print_changes(outcomes: Mapping[Key, Outcome]) -> None:
    """Print what differs, step by step: what would be done and why, and the lines of files that are no secret."""
    for (machine, name), outcome in outcomes.items():
        if not outcome.changes:
            continue
        console.print(f"\n[bold]{machine}: {name}[/]")
        for change in outcome.changes:
            _print_change(change)


def print_notes(outcomes: Mapping[Key, Outcome]) -> None:
    """Print what is missing and no fault of this run: somebody else brings it."""
    for (machine, name), outcome in outcomes.items():
        for change in outcome.changes:
            if change.only_told:
                console.print(f"\n[bold]{machine}: {name}[/]")
                _print_change(change)


def _print_change(change: Change) -> None:
    console.print(Text.assemble(("  ~ ", "yellow"), change.what, (f"  ({change.why})", "dim")), soft_wrap=True)
    if change.by_hand:
        console.print(Text(f"    by hand: {change.by_hand}", style="bold yellow"), soft_wrap=True)
    for line in change.diff.splitlines()[2:]:
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "dim")
        console.print(Text(f"      {line}", style=style), soft_wrap=True)
