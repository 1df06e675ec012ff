"""What the tracker has to be told, kept on disk until it knows.

A journal is a folder ``<home>/tracking/<id>/``: ``journal.jsonl``, one operation a line, in order; ``files/``, copies
of the artifacts to send, so that later changes of the working tree do not matter; ``sent.json``, how far the server
has got. A line is on the disk before it is sent and counted as sent only after the server took it, so a process that
dies in between sends it again: every operation can be sent twice without a second effect.

The process that writes or sends a journal holds a lock on its folder; the lock goes with the process, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

LINES = "journal.jsonl"
SENT = "sent.json"
FILES = "files"
LOCK_WAIT_S = 3.0


@dataclass(frozen=True)
class Entry:
    """One operation.

    Attributes:
        number: place in the journal, from 1.
        at_ms: when it happened, milliseconds since the epoch.
        name: what to do (see ``infra.tracking.sender``).
        values: with what; JSON values.
    """

    number: int
    at_ms: int
    name: str
    values: Mapping[str, Any]


class Journal:
    """A journal that this process holds the lock of. Writing to it never raises: a full disk is a warning."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self._lock = lock
        self.entries = list(_read_lines(folder / LINES))
        sent = _read_json(folder / SENT)
        self.sent: int = sent.get("number", 0)
        self.run_id: str | None = sent.get("run_id")
        self._size = _whole_lines(folder / LINES)
        self._warned = False

    def append(self, name: str, values: Mapping[str, Any], at_ms: int | None = None) -> Entry:
        """Note an operation; it is on the disk when this returns, unless the disk is full."""
        number = self.entries[-1].number + 1 if self.entries else self.sent + 1
        entry = Entry(number, now_ms() if at_ms is None else at_ms, name, dict(values))
        line = json.dumps({"number": entry.number, "at_ms": entry.at_ms, "name": name, "values": entry.values}) + "\n"
        try:
            with (self.folder / LINES).open("r+b" if (self.folder / LINES).exists() else "xb") as file:
                # Half a line, left by a full disk or a killed process, would spoil the next one.
                file.truncate(self._size)
                file.seek(self._size)
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._warn(error)
        else:
            self._size += len(line.encode())
        self.entries.append(entry)
        return entry

    def keep(self, path: Path) -> Path:
        """A copy of a file inside the journal; the file itself if there is no room for a copy.

        A copy and not a hard link: a program that writes into a file in place would change both.
        """
        folder = self.folder / FILES
        copy = folder / uuid.uuid4().hex
        try:
            folder.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
        except OSError as error:
            copy.unlink(missing_ok=True)
            if path.is_file():
                self._warn(error)
            return path.absolute()
        return Path(FILES) / copy.name

    def unsent(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.number > self.sent]

    def acknowledge(self, entry: Entry, run_id: str | None) -> None:
        """Note that the server has this entry and all before it."""
        self.sent, self.run_id = entry.number, run_id
        temporary = self.folder / f"{SENT}.new"
        try:
            temporary.write_text(json.dumps({"number": self.sent, "run_id": run_id}), encoding="utf-8")
            temporary.replace(self.folder / SENT)
            kept = entry.values.get("file")
            if kept and not Path(kept).is_absolute():
                (self.folder / kept).unlink(missing_ok=True)
        except OSError as error:
            self._warn(error)

    @property
    def finished(self) -> bool:
        return bool(self.entries) and self.entries[-1].name == "finish"

    def remove(self) -> None:
        """Delete the journal: all of it is known to the server."""
        # Without its lines a folder is no journal, whatever else a killed process leaves of it.
        with contextlib.suppress(OSError):
            (self.folder / LINES).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Give the lock back."""
        with contextlib.suppress(OSError):
            os.close(self._lock)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            log.warning("what the tracker does not know yet cannot be kept: %s", error)
            self._warned = True


def journal_folder(home: Path) -> Path:
    return home / "tracking"


def open_journal(home: Path, name: str) -> Journal:
    """The journal ``name``, made if there is none, locked for this process.

    Where another process holds it longer than a few seconds (it is sending it), a second journal beside it: both find
    the same run by its tag.

    Raises:
        OSError: there is no room or right to make a folder.
    """
    name = re.sub(r"[^\w.-]", "_", name)
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        folder = journal_folder(home) / name
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
        if lock is not None:
            return Journal(folder, lock)
        if time.monotonic() > deadline:
            name = f"{name}+{uuid.uuid4().hex[:8]}"
        time.sleep(0.05)


def left_journals(home: Path) -> Iterator[Journal]:
    """Journals that no living process holds, the oldest first, each locked while it is looked at."""
    folder = journal_folder(home)
    found = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime) if folder.is_dir() else []
    for path in found:
        if not path.is_dir() or (lock := _lock(path)) is None:
            continue
        journal = Journal(path, lock)
        try:
            if journal.entries:
                yield journal
            else:
                journal.remove()
        finally:
            journal.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _lock(folder: Path) -> int | None:
    """A locked descriptor of ``folder``, or None if another process has it or it has just been removed."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _whole_lines(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    try:
        return path.read_bytes().rfind(b"\n") + 1
    except OSError:
        return 0


def _read_lines(path: Path) -> Iterator[Entry]:
    try:
        lines = path.read_bytes()[: _whole_lines(path)].decode("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            yield Entry(**json.loads(line))
        except (ValueError, TypeError):
            log.warning("%s holds a line that cannot be read; it is left out", path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
