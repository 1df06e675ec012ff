"""A guarded command never outlives its owner, and has time to save its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra.guard import GRACE_S, end_group
from infra.process import run_guarded

SAVES_ON_SIGTERM = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(0.5)
    pathlib.Path("saved").write_text("yes")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path("ready").write_text(str(__import__("os").getpid()))
time.sleep(600)
"""


def wait_for(path: Path, seconds: float = 20) -> str:
    deadline = time.monotonic() + seconds
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)
    return path.read_text()


def wait_gone(pid: int, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


def test_lines_arrive_in_order_and_the_status_comes_back(tmp_path: Path) -> None:
    lines: list[str] = []
    status = run_guarded(
        ["sh", "-c", "echo one; echo two >&2; printf 'half\\rwhole\\n'; printf last; exit 7"],
        cwd=tmp_path,
        on_line=lines.append,
    )
    assert (status, lines) == (7, ["one", "two", "whole", "last"])


def test_a_signal_gives_the_shells_status(tmp_path: Path) -> None:
    assert run_guarded(["sh", "-c", "kill -KILL $$"], cwd=tmp_path) == 128 + signal.SIGKILL


def test_an_exception_stops_the_command_which_may_save_first(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(SAVES_ON_SIGTERM)

    def stop_when_ready() -> None:
        if (tmp_path / "ready").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        # Below a shell that dies of the signal at once, as dvc does: the command itself still gets its time.
        run_guarded(["sh", "-c", f"{sys.executable} work.py; true"], cwd=tmp_path, on_tick=stop_when_ready)
    assert (tmp_path / "saved").read_text() == "yes"
    wait_gone(int((tmp_path / "ready").read_text()))


def test_kill_9_of_the_owner_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(SAVES_ON_SIGTERM)
    root = Path(__file__).parents[2]
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import pathlib, sys; from infra.process import run_guarded;"
            f"run_guarded([sys.executable, 'work.py'], cwd=pathlib.Path({str(tmp_path)!r}))",
        ],
        cwd=root,
    )
    worker = int(wait_for(tmp_path / "ready"))
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert wait_for(tmp_path / "saved") == "yes"
    wait_gone(worker)


def test_what_a_command_leaves_behind_is_ended(tmp_path: Path) -> None:
    run_guarded(["sh", "-c", "sleep 600 & echo $! > left"], cwd=tmp_path)
    wait_gone(int((tmp_path / "left").read_text()))


def test_a_group_of_which_only_zombies_are_left_is_not_waited_for() -> None:
    # As in a pod, whose first process reaps only what it started itself.
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    began = time.monotonic()
    end_group(process.pid)
    assert time.monotonic() - began < GRACE_S / 2
    assert process.wait() == -signal.SIGTERM
