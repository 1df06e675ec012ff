"""The logs of a gang's pods, whole: each pod is followed by a thread of its own, from its first line to its last.

Workers write a copy of their log to the share. Where this machine sees it, that is what is read: it outlives its pod,
so that a controller that was away misses nothing. Otherwise, and of a pod that ended before it wrote any, the log is
read through the API server: a stream that breaks is taken up again behind the last line that came, by the times that
the node's runtime gives to lines.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING

from infra.kubernetes.gang.pod import CONTAINER
from infra.kubernetes.gang.workers import Worker

if TYPE_CHECKING:
    from lightkube import Client

PAUSE_S = 0.5
MARGIN_S = 60
"""Seconds that clocks here and on the nodes may differ; lines that therefore come twice are left out."""
_STAMPED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})(Z|[+-]\d\d:\d\d) ?(.*)", re.DOTALL)
Instant = tuple[float, int]
"""Seconds since the epoch, and nanoseconds: a node writes its own time zone, and lines within a microsecond differ."""


@dataclass(frozen=True)
class Line:
    """One line of a worker's log."""

    worker: Worker
    text: str


class GangLogs:
    """Follows the logs of pods, each in a file ``worker-<index>.<pod>.log``.

    Attributes:
        folder: where logs are kept that were read through the API server.
        copies: the folder of the workers' own copies; None where this machine does not see it.
    """

    def __init__(self, client: Client, folder: Path, copies: Path | None) -> None:
        self._client, self.folder, self.copies = client, folder, copies
        self._lines: Queue[Line] = Queue()
        self._followed: dict[str, _Followed] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def follow(self, worker: Worker) -> None:
        """Follow a pod that has started; called again, take note of whether it has ended."""
        if worker.uid not in self._followed:
            name = f"worker-{worker.index}.{worker.pod}.log"
            copy = self.copies / name if self.copies is not None else None
            followed = _Followed(self._client, worker, self.folder / name, copy, self._lines)
            self._followed[worker.uid] = followed
            threading.Thread(target=followed.run, name=f"log of {worker.pod}", daemon=True).start()
        if worker.finished:
            self._followed[worker.uid].ended.set()

    def lost(self, uid: str) -> None:
        """Take note that a pod is gone: nothing more can be read of it."""
        if uid in self._followed:
            self._followed[uid].ended.set()

    def new(self) -> Iterator[Line]:
        """Yield the lines since the last call, each pod's in their order."""
        with contextlib.suppress(Empty):
            while True:
                yield self._lines.get_nowait()

    def complete(self, uid: str) -> bool:
        """Whether the log of a pod was read to its end."""
        return uid not in self._followed or self._followed[uid].complete.is_set()

    def all_complete(self) -> bool:
        """Whether the logs of all pods that were followed were read to their ends."""
        return all(followed.complete.is_set() for followed in self._followed.values())

    def close(self) -> None:
        """Read no further."""
        for followed in self._followed.values():
            followed.closed.set()


class _Followed:
    def __init__(self, client: Client, worker: Worker, path: Path, copy: Path | None, lines: Queue[Line]) -> None:
        self._client, self._worker, self._path, self._copy, self._lines = client, worker, path, copy, lines
        self._last: Instant | None = None
        self.ended, self.closed, self.complete = threading.Event(), threading.Event(), threading.Event()

    def run(self) -> None:
        try:
            if self._copy is None or not self._follow_copy(self._copy):
                self._follow_api()
        finally:
            self.complete.set()

    def _follow_copy(self, path: Path) -> bool:
        """Follow the copy on the share; returns False where the pod ended without one."""
        offset, pending = 0, b""
        while not self.closed.is_set():
            last_time = self.ended.is_set()
            with contextlib.suppress(OSError):  # not there yet, or the share is away
                with path.open("rb") as file:  # opened anew: a network's file system looks for what is new then
                    file.seek(offset)
                    data = file.read()
                offset += len(data)
                *whole, pending = (pending + data).split(b"\n")
                for line in whole:
                    self._lines.put(Line(self._worker, line.decode("utf-8", "replace")))
            if last_time:
                return offset > 0
            self.ended.wait(PAUSE_S)
        return True

    def _follow_api(self) -> None:
        from infra.kubernetes.client import is_away, status_code

        with self._path.open("w", encoding="utf-8") as file:
            while not self.closed.is_set():
                last_time = self.ended.is_set()
                try:
                    for text in self._read(follow=not last_time):
                        file.write(f"{text}\n")
                        file.flush()
                        self._lines.put(Line(self._worker, text))
                        if self.closed.is_set():
                            return
                except Exception as error:
                    if status_code(error) == 404 or (last_time and not is_away(error)):
                        return  # the pod is gone, or its node has removed the log
                    self.ended.wait(PAUSE_S)
                    continue
                if last_time:
                    return
                self.ended.wait(PAUSE_S)

    def _read(self, *, follow: bool) -> Iterator[str]:
        """Yield the lines after the last one known."""
        since = max(1, int(time.time() - self._last[0])) + MARGIN_S if self._last else None
        log = self._client.log(
            self._worker.pod, container=CONTAINER, follow=follow, since=since, timestamps=True, newlines=False
        )
        for line in log:
            match = _STAMPED.fullmatch(line)
            if match is None:
                continue  # without a time it is no line of the log but the node's own complaint
            instant = (datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00")).timestamp(), int(match[2]))
            if self._last is None or instant > self._last:
                self._last = instant
                yield match[4]


def wait_complete(logs: GangLogs, seconds: float) -> None:
    """Give the logs of ended pods time to come."""
    give_up = time.monotonic() + seconds
    while not logs.all_complete() and time.monotonic() < give_up:
        time.sleep(0.1)
