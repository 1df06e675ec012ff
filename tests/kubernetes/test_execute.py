"""The first process of a run's pod: what Prefect's own command promises holds, though Python is started once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stack_fixtures import ROOT, until
from worker_process import Runs

from infra.stack import rest
from infra.stack.state import Stack

pytestmark = pytest.mark.timeout(600)
FLOW = """
import os
import time
from pathlib import Path

from prefect import flow

HERE = Path(__file__).parent


def mark(what):
    (HERE / f"{what}-{os.environ['PREFECT__FLOW_RUN_ID']}").write_text(f"{os.getpid()} {os.getcwd()}")


mark("imported")
while (HERE / "slow-import").exists():
    time.sleep(0.1)


def told(flow, flow_run, state):
    mark(state.name)


@flow(on_cancellation=[told], on_crashed=[told])
def watched(seconds: float = 0) -> None:
    mark("began")
    time.sleep(seconds)
    mark("ended")
"""


class Pods:
    """Runs whose pods are processes of this machine."""

    def __init__(self, folder: Path, runs: Runs, environment: dict[str, str]) -> None:
        self.folder, self.runs, self._environment = folder, runs, environment
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, **parameters: object) -> tuple[str, subprocess.Popen[str]]:
        run = self.pending(**parameters)
        return run, self.execute(run)

    def pending(self, **parameters: object) -> str:
        """Return a run that a worker has taken."""
        run = self.runs.start(**parameters)
        rest.prefect(self.runs.stack, f"/flow_runs/{run}/set_state", {"state": {"type": "PENDING"}}, 30)
        return run

    def execute(self, run: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.kubernetes.execute"],
            cwd=ROOT,
            env={**self._environment, "PREFECT__FLOW_RUN_ID": run},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def has(self, what: str, run: str) -> bool:
        return (self.folder / f"{what}-{run}").exists()

    def marks(self, run: str) -> set[str]:
        return {path.name.partition("-")[0] for path in self.folder.glob(f"*-{run}")}

    def engine(self, run: str) -> int:
        """Return the pid of the flow's process when it has written it."""

        def written() -> str:
            path = self.folder / f"imported-{run}"
            return path.read_text() if path.exists() else ""

        return int(str(until("the flow's module", written, 60)).split()[0])

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait(10)


@pytest.fixture(scope="module")
def pods(running_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    folder = tmp_path_factory.mktemp("watched")
    (folder / "watched.py").write_text(FLOW)
    rest.prefect(running_stack, "/work_pools/", {"name": "execute", "type": "kubernetes"}, 30)
    flow = rest.prefect(running_stack, "/flows/", {"name": "watched"}, 30)
    deployment = {
        "name": "execute", "flow_id": flow["id"], "work_pool_name": "execute", "entrypoint": "watched.py:watched",
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}],
    }  # fmt: skip
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLOPS_"))}
    environment = {
        **kept,
        "PREFECT_API_URL": running_stack.prefect_api_url,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "reschedule",
        "PYTHONUNBUFFERED": "1",
    }
    made = Pods(
        folder, Runs(running_stack, rest.prefect(running_stack, "/deployments/", deployment, 30)["id"]), environment
    )
    try:
        yield made
    finally:
        made.close()


def test_nothing_is_alive_at_the_fork_that_does_not_survive_one() -> None:
    """A thread would be missing in the engine, whatever it held; a socket would have two readers."""
    seen = """
import infra.kubernetes.watched_engine
import os, pathlib
files = [os.readlink(path) for path in pathlib.Path("/proc/self/fd").iterdir() if path.is_symlink()]
print(len(os.listdir("/proc/self/task")), [file for file in files if file.startswith(("socket:", "anon_inode:"))])
"""
    said = subprocess.run([sys.executable, "-c", seen], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.split(maxsplit=1) == ["1", "[]\n"]


def gone(pid: int) -> Callable[[], bool]:
    return lambda: not Path(f"/proc/{pid}").exists()


def test_a_run_ends_and_its_process_says_so(pods: Pods) -> None:
    run, process = pods.start()
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 0, said
    pods.runs.ends(run, "Completed")
    assert pods.marks(run) == {"imported", "began", "ended"}
    assert (pods.folder / f"began-{run}").read_text().split() == [str(pods.engine(run)), str(pods.folder)]
    assert "Finished in state Completed" in pods.runs.logs(run), "its last lines have come"


def test_sigterm_asks_for_another_start(pods: Pods) -> None:
    run, process = pods.start(seconds=60)
    until("the flow", lambda: pods.has("began", run), 60)
    assert b"infra.kubernetes.execute" in Path(f"/proc/{pods.engine(run)}/cmdline").read_bytes(), "a fork"
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "successfully rescheduled" in said
    assert pods.runs.state(run) == "AwaitingRetry"
    assert gone(pods.engine(run))()
    assert pods.marks(run) == {"imported", "began"}, "no hook: the run is not over"


def test_sigterm_before_the_flow_has_begun_does_too(pods: Pods) -> None:
    slow = pods.folder / "slow-import"
    slow.touch()
    try:
        run, process = pods.start()
        engine = pods.engine(run)
        process.terminate()
        said, _ = process.communicate(timeout=60)
    finally:
        slow.unlink()
    assert process.returncode == 0, said
    assert pods.runs.state(run) == "AwaitingRetry"
    until("the engine's end", gone(engine), 10)
    assert pods.marks(run) == {"imported"}


def test_a_signal_for_all_of_the_pod_crashes_no_run(pods: Pods) -> None:
    run, process = pods.start(seconds=60)
    until("the flow", lambda: pods.has("began", run), 60)
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert pods.runs.state(run) == "AwaitingRetry"


def test_a_cancel_runs_the_hooks(pods: Pods) -> None:
    run, process = pods.start(seconds=60)
    until("the flow", lambda: pods.has("began", run), 60)
    pods.runs.cancel(run)
    process.communicate(timeout=90)
    pods.runs.ends(run, "Cancelled")
    assert pods.marks(run) == {"imported", "began", "Cancelling"}


def test_an_engine_that_is_killed_crashes_its_run_and_the_hooks_run(pods: Pods) -> None:
    run, process = pods.start(seconds=60)
    until("the flow", lambda: pods.has("began", run), 60)
    os.kill(pods.engine(run), signal.SIGKILL)
    process.communicate(timeout=60)
    assert "-9" in pods.runs.ends(run, "Crashed")["state"]["message"]
    assert pods.marks(run) == {"imported", "began", "Crashed"}


def test_a_run_that_was_cancelled_before_does_not_begin(pods: Pods) -> None:
    run = pods.pending()
    pods.runs.cancel(run)
    process = pods.execute(run)
    process.communicate(timeout=90)
    pods.runs.ends(run, "Cancelled")
    assert pods.marks(run) == set()
