"""The process that tries a share out. Reads a question as JSON from its standard input, answers with JSON lines.

Each line holds what has been found out so far, so that whoever gives up on this process knows how far it came.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Protocol

REACHING, WRITING, RENAMING, READING, MEASURING = "reaching it", "writing", "renaming", "reading", "measuring"
PREFIX = ".mlops-doctor-"
SMALL_BYTES = 256 * 1024
SPEED_BYTES = 4 * 2**20
SPARE_BYTES = 16 * SPEED_BYTES
"""Free bytes below which the speed is not measured: nobody's last space is taken for that."""


class Place(Protocol):
    """Where the probe's files go. Each method raises whatever its kind of share fails with."""

    def find_root(self) -> bool: ...
    def write(self, name: str, content: bytes) -> None: ...
    def read(self, name: str) -> bytes: ...
    def rename(self, old: str, new: str) -> None: ...
    def modified(self, name: str) -> float | None: ...
    def remove(self, name: str) -> None: ...
    def space(self) -> tuple[int | None, int | None]: ...


class Folder:
    """A folder, mounted or not. What is written is flushed, and read from where it went, not from memory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find_root(self) -> bool:
        """Take the nearest folder that exists; returns whether that is the root itself."""
        wanted = self.root
        while not self.root.exists():
            self.root = self.root.parent
        return self.root == wanted

    def write(self, name: str, content: bytes) -> None:
        with (self.root / name).open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def rename(self, old: str, new: str) -> None:
        (self.root / old).rename(self.root / new)

    def modified(self, name: str) -> float | None:
        return (self.root / name).stat().st_mtime

    def remove(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def space(self) -> tuple[int | None, int | None]:
        usage = shutil.disk_usage(self.root)
        return usage.total, usage.free


class Remote:
    """Any other kind of share, through DVC's own filesystem for it."""

    def __init__(self, filesystem: Any, root: str) -> None:
        self._dvc = filesystem
        self._fs = filesystem.fs
        self.root = root

    def find_root(self) -> bool:
        wanted = self.root
        while not self._fs.exists(self.root) and self._dvc.parent(self.root) not in ("", "/", self.root):
            self.root = self._dvc.parent(self.root)
        return self.root == wanted

    def write(self, name: str, content: bytes) -> None:
        self._fs.pipe_file(self._path(name), content)

    def read(self, name: str) -> bytes:
        return bytes(self._fs.cat_file(self._path(name)))

    def rename(self, old: str, new: str) -> None:
        self._fs.mv(self._path(old), self._path(new))

    def modified(self, name: str) -> float | None:
        found = self._fs.info(self._path(name)).get("mtime")
        return None if found is None else float(found)

    def remove(self, name: str) -> None:
        if self._fs.exists(self._path(name)):
            self._fs.rm_file(self._path(name))

    def space(self) -> tuple[int | None, int | None]:
        if not hasattr(self._fs, "space"):
            return None, None
        total, free = self._fs.space(self.root)
        return int(total), int(free)

    def _path(self, name: str) -> str:
        return str(self._dvc.join(self.root, name))


def main() -> None:
    question = json.load(sys.stdin)
    step = REACHING
    name, renamed = (f"{PREFIX}{uuid.uuid4().hex}" for _ in range(2))
    place: Place | None = None
    try:
        say(step=step)
        if "mount" in question:
            check_mount(question)
        place = open_place(question)
        say(made=place.find_root())
        total, free = place.space()
        say(total=total, free=free, step=(step := WRITING))
        content = os.urandom(SMALL_BYTES)
        place.write(name, content)
        written, at = time.time(), place.modified(name)
        say(ahead=None if at is None else at - written, step=(step := RENAMING))
        place.rename(name, renamed)
        say(step=(step := READING))
        if place.read(renamed) != content:
            raise OSError("what is read is not what was written: ask its administrator for the disk's health")
        place.remove(renamed)
        say(read=True, step=(step := MEASURING))
        if free is None or free >= SPARE_BYTES:
            measure(place, name)
    except Exception as error:  # every kind of share has its own
        say(failed=sentence(error), remedy=remedy(error), denied=is_denied(error), step=step)
    finally:
        if place is not None:
            for left in (name, renamed):
                with contextlib.suppress(Exception):
                    place.remove(left)


def check_mount(question: dict[str, Any]) -> None:
    """Return if the share is mounted.

    Raises:
        UserError: it is not.
    """
    # Last on the path: this process is started without our code, whose `dvc` is not DVC.
    sys.path.append(question["code"])
    from infra.samba.sentinel import check_mounted

    root, share, source = question["mount"]
    check_mounted(Path(root), share, source)


def open_place(question: dict[str, Any]) -> Place:
    """Return where DVC's remote is, as the settings make it: nothing has to be written for that."""
    from dvc.config import Config
    from dvc.fs import get_cloud_fs

    name = question["remote"]
    config = Config(
        str(Path(question["checkout"]) / ".dvc"),
        config={"core": {"remote": name}, "remote": {name: question["settings"]}},
    )
    maker, settings, root = get_cloud_fs(config, name=name)
    return Folder(Path(root)) if maker.protocol == "local" else Remote(maker(**settings), str(root))


def measure(place: Place, name: str) -> None:
    """Say how many seconds :data:`SPEED_BYTES` take up and down."""
    content = os.urandom(SPEED_BYTES)
    began = time.monotonic()
    place.write(name, content)
    say(up=time.monotonic() - began)
    began = time.monotonic()
    place.read(name)
    say(down=time.monotonic() - began)


def sentence(error: BaseException) -> str:
    """Return what went wrong on one line, without the error's number and the name of a file of ours."""
    for problem in getattr(error, "problems", ()):
        return f"{problem.where} {problem.what}"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    own_file = rf"\S*{re.escape(PREFIX)}[0-9a-f]*: "
    return " ".join(re.sub(own_file, "", text).split()) or type(error).__name__


def remedy(error: BaseException) -> str:
    """Return what to do about it where the error says so itself, as a ``UserError`` does."""
    return next((problem.remedy for problem in getattr(error, "problems", ())), "")


def is_denied(error: BaseException | None) -> bool:
    """Whether a refused login or a missing right is at the bottom of it."""
    while error is not None:
        if isinstance(error, PermissionError):
            return True
        error = error.__cause__ or error.__context__
    return False


def say(**found: object) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
