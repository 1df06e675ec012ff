"""Tells how far a stage is: a line in the terminal, an event for whoever watches."""

from __future__ import annotations

import sys
import time

from ml.events import Events

EVENT_EVERY_S = 0.5
LINE_EVERY_S = 5.0  # where the output is no terminal, lines are kept, so there are fewer


class Progress:
    """Counts units of work; prints done, rate and time left at most twice a second.

    Args:
        events: the stage's events.
        unit: what is counted, in the plural (``frames``).
        total: how many there will be, 0 when nobody knows.
        label: what the line begins with.
    """

    def __init__(self, events: Events, unit: str, total: int, label: str) -> None:
        self.events, self.unit, self.total, self.label = events, unit, total, label
        self.done = 0
        self._terminal = sys.stdout.isatty()
        self._start = self._told = self._printed = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Tell that ``count`` more units are done."""
        self.done += count
        now = time.monotonic()
        if now - self._told < EVENT_EVERY_S:
            return
        self._told = now
        rate = self.done / (now - self._start)
        left = max(self.total - self.done, 0) / rate if self.total else None
        self.events.progress(self.done, max(self.total, self.done), self.unit, left, f"{rate:.1f} {self.unit}/s")
        if self._terminal or now - self._printed >= LINE_EVERY_S:
            self._printed = now
            of = f"/{self.total}" if self.total else ""
            ahead = f"  {left:.0f} s left" if left is not None else ""
            line = f"{self.label}: {self.done}{of} {self.unit}  {rate:.1f}/s{ahead}"
            print(f"\r{line:<78}" if self._terminal else line, end="" if self._terminal else "\n", flush=True)

    def finish(self) -> None:
        """Tell that all units are done, and leave a line that stays."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = self.done / seconds
        self.events.progress(self.done, self.done, self.unit, 0.0, f"{rate:.1f} {self.unit}/s")
        line = f"{self.label}: {self.done} {self.unit} in {seconds:.1f} s, {rate:.1f}/s"
        print(f"\r{line:<78}" if self._terminal else line, flush=True)
