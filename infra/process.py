"""Runs a command so that it never outlives whoever asked for it.

A training may run for hours below a flow that can be killed at any time. The command is therefore started through a
small guard process (:mod:`infra.guard`) that holds the reading end of a pipe from us: when the pipe closes, because
we stop the command or because we died (``kill -9`` included), the guard ends the command's whole process group.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, Queue

from infra import guard


class Child:
    """A process of ours that ends when its standard input closes; its output comes as lines, both streams in order."""

    def __init__(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(os.environ if env is None else env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._lines: Queue[str | None] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def read_line(self, timeout_s: float) -> str | None:
        """Return the next line, without its newline; None when the output has ended.

        Raises:
            queue.Empty: no line came in time.
        """
        return self._lines.get(timeout=timeout_s)

    def write_line(self, line: str) -> None:
        """Send one line to the process.

        Raises:
            OSError: the process is gone.
        """
        assert self._process.stdin is not None  # noqa: S101 - opened with PIPE
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def wait(self) -> int:
        """Wait for the end and return the exit status."""
        return self._process.wait()

    def close(self) -> None:
        """Close the process's standard input, so that it ends what it runs, and wait; kill it if it does not."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(guard.GRACE_S + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - opened with PIPE
        for raw in self._process.stdout:
            # A carriage return redraws a line in a terminal: only its last state is worth keeping.
            self._lines.put(raw.decode("utf-8", "replace").rstrip("\r\n").rpartition("\r")[2])
        self._lines.put(None)


def pump(
    child: Child,
    is_last: Callable[[str], bool],
    on_line: Callable[[str], None],
    on_tick: Callable[[], None],
    tick_s: float = 0.2,
) -> None:
    """Hand on a child's lines, up to and with the one that ``is_last``, or to the end of its output.

    ``on_tick`` is called about every ``tick_s`` seconds meanwhile, and once after the last line.
    """
    next_tick = time.monotonic()
    while True:
        with contextlib.suppress(Empty):
            line = child.read_line(tick_s)
            if line is not None:
                on_line(line)
            if line is None or is_last(line):
                break
        if time.monotonic() >= next_tick:
            on_tick()
            next_tick = time.monotonic() + tick_s
    on_tick()


def guarded(command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> Child:
    """Start ``command`` below a guard: closing the child, or our own end, ends the command's process group."""
    return Child([sys.executable, "-S", "-E", guard.__file__, *command], cwd=cwd, env=env)


def run_guarded(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda line: None,
    on_tick: Callable[[], None] = lambda: None,
) -> int:
    """Run ``command`` to its end and return its exit status (128 + signal when a signal ended it).

    ``on_line`` gets each line of output, ``on_tick`` is called every fifth of a second. An exception from either,
    KeyboardInterrupt included, stops the command before it goes on upwards.
    """
    child = guarded(command, cwd=cwd, env=env)
    try:
        pump(child, lambda line: False, on_line, on_tick)
        return child.wait()
    finally:
        child.close()
