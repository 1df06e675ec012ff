"""`mlops down`: runs are stopped so that they can say so, orphans are found, and nothing stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stack_fixtures import bring_up, make_checkout, mlops, start_run, state_of, until

from infra.stack import processes
from infra.stack.processes import MARK
from infra.stack.state import stack_id


def test_with_nothing_running_it_says_so(tmp_path: Path) -> None:
    done = mlops(make_checkout(tmp_path / "checkout"), "down")
    assert (done.returncode, done.stdout.strip()) == (0, "Nothing was running.")


def test_orphans_are_found_by_their_mark_even_without_a_stack_file(checkout: Path) -> None:
    home = checkout / ".mlops"
    home.mkdir()
    marked = {**os.environ, MARK: stack_id(home)}
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    orphan = subprocess.Popen(
        [sys.executable, "-c", script], env=marked, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert orphan.stdout
        orphan.stdout.readline()
        assert mlops(checkout, "down").returncode == 0
        assert orphan.wait(timeout=10) == -9, "SIGTERM first, then SIGKILL"
    finally:
        orphan.kill()
    assert processes.marked(home) == []


@pytest.mark.slow
def test_a_running_flow_is_told_and_shown_as_crashed(checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "began"
    folder.mkdir()
    stack = bring_up(checkout).stack
    run = start_run(stack, seconds=600, folder=str(folder))
    pid = int(until("the run to begin", lambda: [path.name for path in folder.iterdir()])[0])
    stopped = mlops(checkout, "down")
    assert stopped.returncode == 0
    assert "was stopped; retry it or start it again" in " ".join(stopped.stdout.split())
    assert processes.marked(stack.home) == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    again = bring_up(checkout).stack
    assert state_of(again, run) == "Crashed"
