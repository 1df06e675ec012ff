"""One at a time in one checkout. The machines themselves are held by :mod:`infra.machines.hold`, against all others."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.problems import Problem, UserError


@contextmanager
def site_lock(folder: Path) -> Iterator[None]:
    """Hold the checkout's lock of the site while the block runs.

    Raises:
        UserError: another process of this machine provisions the site now, with its number.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = path.read_text(encoding="utf-8").strip() or "?"
            remedy = "wait until it has ended; a lock is never left behind"
            raise UserError(Problem(str(path), f"process {who} changes the site now", remedy)) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
