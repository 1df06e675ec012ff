"""Follows the events that a process writes while it runs (see :mod:`ml.events`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


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
