"""How a training shows that it goes on: a live bar on a terminal, a line an epoch elsewhere, and events."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import SupportsFloat

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ml.events import Events

_EVERY_S = 1.0
_SHOWN = ("mAP50", "mAP50-95", "precision", "recall")


class Display:
    """Shows one training of ``epochs`` epochs. Use it as a context, so that the terminal is put in order again."""

    def __init__(self, events: Events, epochs: int) -> None:
        self.events, self.epochs = events, epochs
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[losses]}  {task.fields[left]} left"),
            console=self.console,
            transient=True,
            auto_refresh=False,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None, losses="", left="?")
        self.told = 0.0
        self.started = time.monotonic()
        self.done_here = 0.0

    def __enter__(self) -> Display:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def say(self, message: str, params: Mapping[str, str] | None = None) -> None:
        """A line for the reader, and a ``note``."""
        self.console.print(message, markup=False)
        self.events.note(message, params)

    def begin(self) -> None:
        """The first epoch starts now: time is counted from here."""
        self.started = time.monotonic()

    def batch(self, epoch: int, batch: int, batches: int, sums: Mapping[str, SupportsFloat]) -> None:
        """After batch ``batch`` (from 1) of epoch ``epoch`` (from 0); ``sums`` of the losses so far in it."""
        now = time.monotonic()
        if now - self.told < _EVERY_S:
            return
        self.told = now
        losses = "  ".join(f"{name.removesuffix('_loss')} {float(value) / batch:.3f}" for name, value in sums.items())
        left = self._left(self.done_here + batch / batches, self.epochs - epoch - batch / batches)
        self.events.progress(batch, batches, "batches", left, f"epoch {epoch + 1}/{self.epochs}  {losses}")
        self.bar.update(
            self.task,
            description=f"epoch {epoch + 1}/{self.epochs}",
            completed=batch,
            total=batches,
            losses=losses,
            left=_duration(left),
            refresh=True,
        )

    def epoch(self, row: Mapping[str, float]) -> None:
        """After a whole epoch, validated and checkpointed."""
        self.done_here += 1
        number = int(row["epoch"])
        left = self._left(self.done_here, self.epochs - number)
        metrics = {name: value for name, value in row.items() if name != "epoch"}
        self.events.epoch(number, self.epochs, metrics, left)
        losses = "  ".join(f"{name.removesuffix('_loss')} {row[name]:.3f}" for name in row if name.endswith("_loss"))
        judged = "  ".join(f"{name} {row[name]:.3f}" for name in _SHOWN if name in row)
        line = f"epoch {number}/{self.epochs}  {losses}  {judged}  {row['seconds']:.1f} s, {_duration(left)} left"
        self.console.print(line, markup=False)

    def _left(self, done: float, to_do: float) -> float:
        return (time.monotonic() - self.started) / done * to_do


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
