"""Runs a whole command, start to exit, and says what it cost."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """Of one whole command with all its processes: wall and CPU seconds, peak memory of one process in MiB.

    The peak is at least that of the process that started the command.
    """

    wall_s: float
    cpu_s: float
    memory_mib: float


class CommandError(RuntimeError):
    """A command failed; the message ends with its last lines."""


def run(command: Sequence[str | Path], environment: Mapping[str, str], folder: Path | None = None) -> Cost:
    """Run a command to its end; raise with its last lines where it fails."""
    # What the last command wrote must not be written to the disk at this one's cost.
    os.sync()
    with tempfile.TemporaryFile() as log:
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=dict(environment), cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise CommandError(f"{' '.join(map(str, command))}\n{log.read().decode(errors='replace')[-3000:]}")
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit)
