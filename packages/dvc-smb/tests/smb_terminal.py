"""A command on a terminal of its own, for what is asked of a person."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

LIMIT_S = 60


def answer_on_terminal(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    question: str,
    answer: str,
    timeout: float = 60,
) -> tuple[int, str]:
    """Run a command, type ``answer`` when it has asked ``question``, and return its status and all that was shown.

    Raises:
        AssertionError: it does not ask, shows what is typed, or does not end.
    """
    ours, its = pty.openpty()
    # The terminal that stands behind /dev/tty is its own, too: passwords are asked for there.
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command],
        cwd=folder,
        env=dict(environment),
        stdin=its,
        stdout=its,
        stderr=its,
    )
    shown, typed, end = "", False, time.monotonic() + LIMIT_S
    try:
        while True:
            assert time.monotonic() < end, f"not over after {LIMIT_S} s:\n{shown}"
            if select.select([ours], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    shown += os.read(ours, 65536).decode(errors="replace")
            elif process.poll() is not None:
                break
            if not typed and question in shown:
                assert not termios.tcgetattr(its)[3] & termios.ECHO, "what is typed would be shown"
                os.write(ours, f"{answer}\n".encode())
                typed = True
    finally:
        if process.poll() is None:
            process.kill()
        os.close(ours)
        os.close(its)
    assert typed, f"it did not ask {question!r}:\n{shown}"
    assert answer not in shown
    return process.wait(), shown
