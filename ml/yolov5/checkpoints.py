"""Checkpoints that survive a kill at any moment: complete or not there, recognised when corrupt.

A file is ``MAGIC``, the SHA-256 of what follows, and a ``torch.save`` archive of plain containers and tensors. It is
written beside its final name, synced and renamed; the one before stays until then and one epoch longer.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAGIC = b"MLOPS-CHECKPOINT-1\n"
_KEPT = 2

State = dict[str, Any]


def write_atomically(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` so that a reader, also one after a power cut, sees the old or the new whole file.

    Raises:
        OSError: it could not be written; the old file is untouched and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Checkpoints:
    """The checkpoints of one training, in ``folder``, named by the number of whole epochs they hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, epochs: int, state: State) -> None:
        """Keep ``state`` after ``epochs`` whole epochs and drop all but the newest two.

        Raises:
            OSError: no space or no right to write; the earlier checkpoints are still there.
        """
        import torch

        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getbuffer()
        write_atomically(
            self.folder / f"epoch-{epochs:05d}.ckpt", b"".join((MAGIC, hashlib.sha256(payload).digest(), payload))
        )
        for path in self._newest_first()[_KEPT:]:
            path.unlink(missing_ok=True)

    def load(self, warn: Callable[[str], None]) -> State | None:
        """The newest whole checkpoint, None where there is none. Corrupt ones are named to ``warn`` and removed."""
        import torch

        for leftover in self.folder.glob(".epoch-*"):
            leftover.unlink(missing_ok=True)
        for path in self._newest_first():
            content = path.read_bytes()
            head = len(MAGIC) + hashlib.sha256().digest_size
            payload = content[head:]
            if content[:head] == MAGIC + hashlib.sha256(payload).digest():
                state: State = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
                return state
            warn(f"{path.name} is corrupt and was dropped; going on from the checkpoint before it, if there is one")
            path.unlink(missing_ok=True)
        return None

    def clear(self) -> None:
        """Remove all checkpoints of this training."""
        for path in self._newest_first():
            path.unlink(missing_ok=True)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*.ckpt"), reverse=True)
