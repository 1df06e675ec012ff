"""Follows the events that a process writes while it runs (see :mod:`ml.events`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class LineReader:
    """Reads what is new in a text file at each call; half a line is left for the next."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        """Begin at byte ``offset`` of ``path``, which need not exist yet."""
        self._path, self._offset = path, offset

    def new(self) -> Iterator[str]:
        """Yield the lines since the last call, in order, without their ends."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield line.decode("utf-8", "replace").rstrip()


class EventReader:
    """Reads what is new in an event file at each call."""

    def __init__(self, path: Path) -> None:
        """Begin at the present end of ``path``, which need not exist yet."""
        self._lines = LineReader(path, path.stat().st_size if path.exists() else 0)

    def new(self) -> Iterator[dict[str, Any]]:
        """Yield the events since the last call, in order."""
        for line in self._lines.new():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue  # a line cut by a full disk
