"""Files on the local disk that have their name only when they are complete.

Plain calls of the operating system: with twenty thousand small files, the objects of ``pathlib`` and ``io`` would cost
more than writing them.
"""

# ruff: noqa: PTH103, PTH105, PTH108, PTH118, PTH120

from __future__ import annotations

import itertools
import os
from contextlib import suppress

_numbers = itertools.count()


def save(content: memoryview, local: str) -> None:
    """Write a local file that has its name only when complete."""
    temporary = temporary_name(local)
    descriptor = create(temporary)
    try:
        try:
            write_all(descriptor, content, local)
        finally:
            os.close(descriptor)
        os.replace(temporary, local)
    except BaseException:
        remove(temporary)
        raise


def temporary_name(local: str) -> str:
    """Return a new name beside ``local``, of any length that ``local`` itself may have."""
    return os.path.join(os.path.dirname(local), f".dvc-smb-{os.getpid()}-{next(_numbers)}.part")


def create(temporary: str) -> int:
    """Open a new file for writing, in a folder that is made if need be; return its descriptor."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        return os.open(temporary, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(temporary), exist_ok=True)
        return os.open(temporary, flags, 0o666)


def write_all(descriptor: int, data: memoryview, local: str) -> None:
    """Append; an error names ``local``, the file that all this is for."""
    try:
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError as error:
        raise OSError(error.errno, error.strerror, local) from error


def remove(temporary: str) -> None:
    """Delete a file if it exists."""
    with suppress(OSError):
        os.unlink(temporary)
