"""A warm DVC: one process that has DVC imported and answers each command from a fork of itself.

Starting DVC costs about 1.5 s of CPU, nearly all of it imports, and a flow gives some eight commands. This process
pays once, beside the flow's own start; a command then takes a few hundredths of a second. It reads a command a line
as JSON (``argv``, ``env``) from its standard input, lets DVC's output through, and closes it with a line of NUL and
the exit status. When the input closes, the command at work is ended with its stages (:mod:`infra.guard`).

DVC tells a share that is away from one that refuses only in prose. The exit status tells it by the errors themselves:
:data:`PASSING` and :data:`REFUSED`, as in sysexits.h.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from infra.guard import Owner, default_signals

END = "\0"
"""Begins the line that closes a command's output; the exit status follows."""
PASSING = 75
"""Exit status of a command that failed because something did not answer: the same may work later (EX_TEMPFAIL)."""
REFUSED = 77
"""Exit status of a command that failed because it was not allowed or not possible: it will not pass (EX_NOPERM)."""
ONE_COMMAND = (
    "import sys; sys.path.insert(0, sys.argv[1]); from infra.repository.dvc_process import run;"
    " sys.exit(run(sys.argv[2:]))"
)
# What a mounted share fails with while its server is away.
_AWAY = frozenset(
    {errno.EIO, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ESTALE, errno.ENOTCONN}
)
_LOGGERS = ("dvc", "dvc_data", "dvc_objects")


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


def run(argv: list[str]) -> int:
    """Run a dvc command in this process and return its exit status, :data:`PASSING` and :data:`REFUSED` among them."""
    from dvc.cli import main

    causes = _Causes()
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(causes)
    status: int = main(argv)
    if status and causes.status:
        return causes.status
    return status


class _Causes(logging.Handler):
    """Looks at the errors that DVC logs. One that can pass outweighs the others, which may have come of it."""

    status: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        while error is not None and self.status != PASSING:
            # A file that is not there is the graph's business, not the share's.
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                away = isinstance(error, ConnectionError | TimeoutError) or error.errno in _AWAY
                self.status = PASSING if away else REFUSED
            error = error.__cause__ or error.__context__


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
        status = run(command["argv"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _spawn(command: dict[str, Any]) -> int:
    process = subprocess.Popen(
        [sys.executable, "-c", ONE_COMMAND, str(Path(__file__).parents[2]), *command["argv"]],
        env=command["env"],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=default_signals,
    )
    return process.pid
