"""One training at a time on a machine: two would share its cores and memory, and each take more than twice as long."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def one_training(say: Callable[[str], None], folder: Path | None = None) -> Iterator[None]:
    """Wait until no other process of this user trains on this machine, then hold the place.

    The place is free again when the process ends, however it ends.

    Args:
        say: told when there is a wait, and for which process.
        folder: where the lock lies, the system's folder for temporary files when None.
    """
    path = (folder or Path(tempfile.gettempdir())) / f"mlops-training-{os.getuid()}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another training is at work (process {file.read().strip() or 'unknown'}): waiting for it to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield
