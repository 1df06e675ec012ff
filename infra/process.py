"""Runs a command so that it never outlives whoever asked for it.

A training may run for hours below a flow that can be killed at any time. The command is therefore started through a
small guard process that holds the reading end of a pipe from us: when the pipe closes, because we stop the command
or because we died (``kill -9`` included), the guard ends the command's whole process group, first with SIGTERM, so
that it can save its work, then with SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, Queue

GRACE_S = 20.0
"""Seconds that a command has between SIGTERM and SIGKILL."""


def run_guarded(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda line: None,
    on_tick: Callable[[], None] = lambda: None,
    tick_s: float = 0.2,
) -> int:
    """Run ``command`` to its end and return its exit status (128 + signal when a signal ended it).

    Args:
        on_line: is given each line of the command's output (both streams, in order), without its newline.
        on_tick: is called about every ``tick_s`` seconds while the command runs, and once after its last line.

    An exception from a callback, KeyboardInterrupt included, stops the command before it goes on upwards.
    """
    guard = subprocess.Popen(
        [sys.executable, "-S", "-E", __file__, *command],
        cwd=cwd,
        env=dict(os.environ if env is None else env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    lines: Queue[str | None] = Queue()
    reader = threading.Thread(target=_read_lines, args=(guard, lines), daemon=True)
    reader.start()
    try:
        next_tick = time.monotonic()
        while True:
            with contextlib.suppress(Empty):
                line = lines.get(timeout=tick_s)
                if line is None:
                    break
                on_line(line)
            if time.monotonic() >= next_tick:
                on_tick()
                next_tick = time.monotonic() + tick_s
        on_tick()
        return guard.wait()
    finally:
        _close(guard)


def _read_lines(guard: subprocess.Popen[bytes], lines: Queue[str | None]) -> None:
    assert guard.stdout is not None  # noqa: S101 - opened with PIPE
    for raw in guard.stdout:
        # A carriage return redraws a line in a terminal: only its last state is worth keeping.
        lines.put(raw.decode("utf-8", "replace").rstrip("\r\n").rpartition("\r")[2])
    lines.put(None)


def _close(guard: subprocess.Popen[bytes]) -> None:
    if guard.stdin is not None:
        with contextlib.suppress(OSError):
            guard.stdin.close()
    try:
        guard.wait(GRACE_S + 5)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()


def _guard(command: Sequence[str]) -> int:
    """What the guard process does: start the command, end its group when our standard input closes."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_default_signals,
    )
    stopping = threading.Event()
    stopper = threading.Thread(target=_end_with_owner, args=(child, stopping), daemon=True)
    stopper.start()
    status = child.wait()
    if stopping.is_set():
        stopper.join()
    # What the command left behind in its group would keep the output open and the files locked.
    _signal_group(child.pid, signal.SIGKILL)
    return status if status >= 0 else 128 - status


def _default_signals() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_DFL)


def _end_with_owner(child: subprocess.Popen[bytes], stopping: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stopping.set()
    _signal_group(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    # The group, not only its leader: a shell may be gone while the training below it still saves.
    while time.monotonic() < deadline and _signal_group(child.pid, 0):
        time.sleep(0.1)
    _signal_group(child.pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(_guard(sys.argv[1:]))
