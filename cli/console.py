"""The one console of the command, and a live table with a line for each part."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

console = Console(highlight=False)

MARKS = {"ready": "[green]✓[/]", "kept": "[green]✓[/]", "stopped": "[green]✓[/]", "failed": "[red]✗[/]"}


class Progress:
    """Lines of parts and what each does now, with seconds; plain lines where the output is no terminal."""

    def __init__(self, parts: Sequence[str]) -> None:
        self.began = time.monotonic()
        self.lines: dict[str, tuple[str, str, float]] = {}
        self.notes: list[str] = []
        self.parts = list(parts)
        self.spinner = Spinner("dots")

    def report(self, part: str, state: str, detail: str) -> None:
        """As :data:`infra.stack.start.Report`."""
        if part not in self.parts:
            self.notes.append(detail if state == "note" else f"{state} {detail}")
            known = False
        else:
            known = self.lines.get(part, ("", ""))[:2] == (state, detail)
            if not known:
                self.lines[part] = (state, detail, time.monotonic() - self.began)
        if not (known or console.is_terminal):
            console.print(Text(f"{part}: {state} {detail}".rstrip()))

    def __rich__(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        justifications: tuple[JustifyMethod, ...] = ("left", "left", "left", "right")
        for justify in justifications:
            table.add_column(no_wrap=True, justify=justify)
        table.add_column(overflow="fold")
        for part in self.parts:
            if part not in self.lines:
                continue
            state, detail, seconds = self.lines[part]
            done = state in MARKS
            mark: RenderableType = Text.from_markup(MARKS[state]) if done else self.spinner
            shown = seconds if done else time.monotonic() - self.began
            kept = state == "kept"
            took = Text("" if kept else f"{shown:.1f} s", style="dim")
            table.add_row(mark, part, "running" if kept else state, took, Text(detail))
        return Group(*(Text(note, style="dim") for note in self.notes), table)


@contextmanager
def live_progress(parts: Sequence[str]) -> Iterator[Progress]:
    """Show a :class:`Progress` while the block runs; its last state stays on the screen."""
    progress = Progress(parts)
    if not console.is_terminal:
        yield progress
        return
    with Live(progress, console=console, refresh_per_second=8):
        yield progress
