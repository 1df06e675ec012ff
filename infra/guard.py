"""The guard between an owner and a command: when the owner goes, the command is ended, with time to save its work.

Run as a script with the command as arguments (see :func:`infra.process.run_guarded`); only the standard library, so
that it starts in a few hundredths of a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Queue

GRACE_S = 20.0
"""Seconds that a command has between SIGTERM and SIGKILL."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Owner:
    """The process that started this one, seen through our standard input: its lines, and its end.

    Attributes:
        lines: what it writes, a line an item; None when it has closed the pipe or is gone.
    """

    def __init__(self) -> None:
        # Only the owner decides when we go: a signal meant for its terminal or group must not cut its command off.
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self.lines: Queue[str | None] = Queue()
        self._group: int | None = None
        self._gone = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def wait(self, leader: int) -> int:
        """Wait for a child that leads a process group of its own, and return its exit status as a shell gives it.

        When the owner goes meanwhile, the group is ended. Whatever the child leaves behind in its group is killed: it
        would keep output open and files locked.
        """
        self._group = leader
        if self._gone.is_set():  # the watcher may have looked before there was a group
            end_group(leader)
        _, raw = os.waitpid(leader, 0)
        if self._gone.is_set():
            self._watcher.join()
        self._group = None
        _signal_group(leader, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(raw)
        return status if status >= 0 else 128 - status

    def _watch(self) -> None:
        pending = b""
        while data := os.read(0, 65536):
            *whole, pending = (pending + data).split(b"\n")
            for line in whole:
                self.lines.put(line.decode())
        self._gone.set()
        if self._group is not None:
            end_group(self._group)
        self.lines.put(None)


def end_group(group: int) -> None:
    """End a process group: SIGTERM, then SIGKILL after :data:`GRACE_S`."""
    _signal_group(group, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    # The group, not only its leader: a shell may be gone while the training below it still saves.
    while time.monotonic() < deadline and _signal_group(group, 0) and not _only_zombies(group):
        time.sleep(0.1)
    _signal_group(group, signal.SIGKILL)


def _only_zombies(group: int) -> bool:
    """Whether what is left of the group has ended: a pod's first process reaps nothing that its parent left behind.

    Always False where there is no ``/proc``.
    """
    states = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name before these, in brackets, may hold anything (proc_pid_stat(5)).
            state, _, of = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:3]
            if int(of) == group:
                states.add(state)
    return bool(states) and states <= {"Z", "X"}


def default_signals() -> None:
    """Undo in a child what :class:`Owner` ignores."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _main(command: Sequence[str]) -> int:
    owner = Owner()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=default_signals)
    return owner.wait(child.pid)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
