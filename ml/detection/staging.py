"""Files appear under their final names only when they are complete."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from configs.problems import Problem, UserError

PREFIX = ".partial-"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder to write into; what lies there at the end is moved into ``out``, and nothing if an error ends it.

    What killed runs left behind is removed first.

    Raises:
        UserError: ``out`` cannot be written, or the disk is full.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for stale in out.glob(f"{PREFIX}*"):
            pid = stale.name.removeprefix(PREFIX)
            if pid.isdigit() and not (psutil.pid_exists(int(pid)) and int(pid) != os.getpid()):
                shutil.rmtree(stale, ignore_errors=True)
        folder = out / f"{PREFIX}{os.getpid()}"
        folder.mkdir()
    except OSError as error:
        raise UserError(_cannot_write(out, error)) from None
    try:
        yield folder
        _move(folder, out)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise UserError(_cannot_write(out, error)) from None
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(folder: Path, out: Path) -> None:
    for item in sorted(folder.iterdir()):
        if item.is_dir():
            (out / item.name).mkdir(exist_ok=True)
            _move(item, out / item.name)
        else:
            item.replace(out / item.name)


def _cannot_write(out: Path, error: OSError) -> Problem:
    if error.errno in NO_SPACE:
        return Problem(str(out), "the disk is full", "free some space, or name another folder")
    return Problem(str(out), f"cannot be written: {error.strerror}", "name a folder that you may write to")
