"""The log of a worker on a cluster: to standard output, and a copy to the share.

Of a pod that is gone, Kubernetes has no log any more; whoever looks after the gang reads the copy. Lines of the agent
begin with :data:`NOTE`, events of rank 0 with :data:`EVENT`; all others are torchrun's and the ranks' own.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TextIO

NOTE = "[worker] "
EVENT = "[event] "
READY = "ready"
"""The note of a worker that has its data, and begins to look for its peers."""
STARTED = "ranks started"
"""How the note begins that tells of ranks that were started."""


class WorkerLog:
    """Writes lines. A copy that cannot be written (the share is away or full) stops no training."""

    def __init__(self, copy: Path | None) -> None:
        self._copy: TextIO | None = None
        if copy is not None:
            with contextlib.suppress(OSError):
                copy.parent.mkdir(parents=True, exist_ok=True)
                self._copy = copy.open("a", encoding="utf-8", buffering=1)

    def line(self, text: str) -> None:
        """Write a line as it is."""
        print(text, flush=True)
        if self._copy is not None:
            with contextlib.suppress(OSError):
                self._copy.write(f"{text}\n")

    def note(self, text: str) -> None:
        """Write a line of the agent's own."""
        self.line(f"{NOTE}{text}")

    def event(self, text: str) -> None:
        """Write an event of rank 0."""
        self.line(f"{EVENT}{text}")
