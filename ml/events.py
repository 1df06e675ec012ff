"""Progress of a stage as JSON lines, for whoever watches: a terminal, a flow, a tracker.

A stage appends one line an event to the file named by the environment variable ``MLOPS_EVENTS`` (none: nothing is
written) and goes on; it neither knows nor waits for the reader. Every line has ``time`` (seconds since the epoch),
``stage`` and ``kind``; the other keys depend on the kind:

- ``progress``: ``done`` and ``total`` in ``unit``, ``eta_s`` seconds left or null, ``message``
- ``epoch``: ``epoch`` (from 1), ``epochs``, ``metrics`` (name to number), ``eta_s``
- ``note``: ``message``; ``params`` (name to text) where the stage decided something that is worth recording
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

ENVIRONMENT = "MLOPS_EVENTS"


class Events:
    """Writes the events of one stage. Failing to write (a full disk) never fails the stage."""

    def __init__(self, stage: str, path: Path | None = None) -> None:
        named = os.environ.get(ENVIRONMENT)
        self.stage = stage
        self.path = path or (Path(named) if named else None)

    def progress(self, done: int, total: int, unit: str, eta_s: float | None = None, message: str = "") -> None:
        """Tell that ``done`` of ``total`` units are finished."""
        self._write("progress", {"done": done, "total": total, "unit": unit, "eta_s": eta_s, "message": message})

    def epoch(self, epoch: int, epochs: int, metrics: Mapping[str, float], eta_s: float | None = None) -> None:
        """Tell that epoch ``epoch`` (from 1) of ``epochs`` is finished, with its losses and metrics."""
        self._write("epoch", {"epoch": epoch, "epochs": epochs, "metrics": dict(metrics), "eta_s": eta_s})

    def note(self, message: str, params: Mapping[str, str] | None = None) -> None:
        """Tell something worth reading, and what was decided at run time (device, precision, threads)."""
        self._write("note", {"message": message, "params": dict(params or {})})

    def _write(self, kind: str, values: Mapping[str, object]) -> None:
        if self.path is None:
            return
        line = json.dumps({"time": time.time(), "stage": self.stage, "kind": kind, **values})
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            self.path = None
