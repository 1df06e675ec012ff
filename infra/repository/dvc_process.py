"""A warm DVC: one process that has DVC imported and answers each command from a fork of itself.

Starting DVC costs about 1.5 s of CPU, nearly all of it imports, and a flow gives some eight commands. This process
pays once, beside the flow's own start; a command then takes a few hundredths of a second. It reads a command a line
as JSON (``argv``, ``env``) from its standard input, lets DVC's output through, and closes it with a line of NUL and
the exit status. When the input closes, the command at work is ended with its stages (:mod:`infra.guard`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from infra.guard import Owner, default_signals

END = "\0"
"""Begins the line that closes a command's output; the exit status follows."""


def serve() -> None:
    """Answer commands until the standard input closes. Starts with ``os.getcwd()`` as the checkout's root."""
    can_fork = sys.platform == "linux"  # elsewhere system libraries do not survive a fork without exec
    if can_fork:
        _warm_up()
    owner = Owner()
    while (line := owner.lines.get()) is not None:
        command = json.loads(line)
        leader = _fork(command) if can_fork else _spawn(command)
        status = owner.wait(leader)
        os.write(1, f"{END}{status}\n".encode())


def _warm_up() -> None:
    """Import what the commands need by giving one that changes nothing; its output and errors are nobody's."""
    from dvc.cli import main

    kept = os.dup(1), os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    main(["repro", "--dry", "--quiet"])
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(kept[0], 1)
    os.dup2(kept[1], 2)
    for descriptor in (*kept, null):
        os.close(descriptor)


def _fork(command: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    status = 255
    try:
        os.setsid()
        default_signals()
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.environ.clear()
        os.environ.update(command["env"])
        from dvc.cli import main

        status = main(command["argv"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _spawn(command: dict[str, Any]) -> int:
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *command["argv"]],
        env=command["env"],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=default_signals,
    )
    return process.pid
