"""Follows the events that a stage writes while it runs (see :mod:`ml.events`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.durations import duration


class EventReader:
    """Reads what is new in an event file at each call; half a line is left for the next."""

    def __init__(self, path: Path) -> None:
        """Begin at the present end of ``path``, which need not exist yet."""
        self.path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def new(self) -> Iterator[dict[str, Any]]:
        """Yield the events since the last call, in order."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    continue  # a line cut by a full disk


_UNTOLD = ("precision", "recall", "lr", "seconds")
"""Numbers of an epoch that a log line leaves to the tracker's charts."""


def told(event: dict[str, Any]) -> str | None:
    """Return an event as one line for a log, or None for one that comes too often to be logged."""
    left = event.get("eta_s")
    eta = f", {duration(left)} left" if left else ""
    if event["kind"] == "epoch":
        shown = {name.removesuffix("_loss"): value for name, value in event["metrics"].items() if name not in _UNTOLD}
        metrics = "  ".join(f"{name} {value:.3f}" for name, value in shown.items())
        return f"epoch {event['epoch']}/{event['epochs']}  {metrics}{eta}"
    if event["kind"] == "note":
        return str(event["message"])
    return None
