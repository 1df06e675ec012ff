"""Starting processes that outlive the command, recognising them later, and stopping them for good."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from infra.stack.state import Part, stack_id

MARK = "MLOPS_STACK"
PART_MODULES = {f"infra.stack.{name}" for name in ("prefect_server", "mlflow_server", "worker")}
LOG_LIMIT = 5_000_000  # bytes after which a log is set aside at the next start
# psutil computes start times from the boot time, which moves by a little when the clock is set.
START_TOLERANCE_S = 2.0
# Children of this very process. Without these objects Python would collect their exit statuses on its own.
_children: dict[int, subprocess.Popen[bytes]] = {}


def spawn(module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path) -> Part:
    """Start ``python -m module`` in a session of its own, with its output appended to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=dict(environment),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_default_signals,
        )
    _children[child.pid] = child
    return Part(child.pid, psutil.Process(child.pid).create_time())


def exit_status(part: Part) -> int | None:
    """How a child of this very process ended; None while it runs, and for a process of somebody else."""
    child = _children.get(part.pid)
    return child.poll() if child else None


def _default_signals() -> None:
    # A shell starts `command &` with SIGINT ignored; children inherit that, and a worker that ignores SIGINT
    # also ignores SIGTERM, because Prefect turns the one into the other.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def find(part: Part | None) -> psutil.Process | None:
    """The process of ``part`` if it still runs; None for a dead one, a zombie, or another with the same pid."""
    if part is None:
        return None
    try:
        process = psutil.Process(part.pid)
        same = abs(process.create_time() - part.started) < START_TOLERANCE_S
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def is_running(part: Part | None) -> bool:
    return find(part) is not None


def marked(home: Path) -> list[psutil.Process]:
    """All processes of the stack of ``home``, also those whose parents are gone; never the caller or its parents."""
    mark = stack_id(home)
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in own and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def flow_run_ids(processes: Iterable[psutil.Process]) -> set[str]:
    """The ids of the flow runs that ``processes`` work for."""
    ids = set()
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            ids.add(process.environ().get("PREFECT__FLOW_RUN_ID", ""))
    return ids - {""}


def is_part(process: psutil.Process) -> bool:
    """Whether it is a server or a worker of some stack."""
    try:
        return not PART_MODULES.isdisjoint(process.cmdline())
    except psutil.Error:
        return False


def is_flow_process(process: psutil.Process) -> bool:
    """Whether it is the process of a flow itself, which on SIGTERM stops what it has started."""
    try:
        return "prefect.engine" in process.cmdline()
    except psutil.Error:
        return False


def terminate(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()


def wait_gone(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until all ``processes`` are gone; return those that are left after ``seconds``."""
    deadline = time.monotonic() + seconds
    left = list(processes)
    while True:
        left = [process for process in left if _alive(process)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def _alive(process: psutil.Process) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            if process.pid in _children:
                _children.pop(process.pid).poll()
            return False
        return process.is_running()
    except psutil.Error:
        return False


def stop(processes: Iterable[psutil.Process], seconds: float) -> None:
    """SIGTERM, and SIGKILL for what is left after ``seconds``."""
    processes = list(processes)
    terminate(processes)
    left = wait_gone(processes, seconds)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    wait_gone(left, 10)


def last_lines(log: Path, count: int = 12) -> list[str]:
    """The last non-empty lines of a log, at most ``count``; none for a file that is not there."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line.rstrip() for line in lines if line.strip()][-count:]
