"""Cold start of the stack: ``mlops up`` against starting the same parts one after the other by hand.

By hand is what the documentation of Prefect and MLflow says: ``prefect server start``, ``prefect work-pool create``,
``prefect deploy --all``, ``prefect worker start``, ``mlflow server``. Each side starts in an empty folder, the sides
take turns, and each is done when both servers answer, the worker polls and the deployment is known. Prints a Markdown
table of medians; wall seconds, processor seconds of all processes, peak memory of all parts together.

    python -m benchmarks.stack_start --rounds 3
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.stack.rest import answers

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
MARK = "STACK_BENCHMARK"

FLOW = "from prefect import flow\n\n\n@flow\ndef demo() -> None:\n    pass\n"
PREFECT_YAML = """
pull:
  - prefect.deployments.steps.set_working_directory: {directory: "{{ $PWD }}"}
deployments:
  - {name: local, entrypoint: "flows/demo.py:demo", work_pool: {name: local}}
"""


@dataclass(frozen=True)
class Cost:
    """Seconds until all was up, processor seconds up to then, peak of the resident memory in MiB."""

    wall: float
    cpu: float
    memory: float


class Meter:
    """Watches all processes that carry a mark in their environment."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.peak = 0.0
        self.cpu: dict[int, float] = {}
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch)

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def _watch(self) -> None:
        while not self.stopped.wait(0.25):
            memory = 0
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    memory += process.memory_info().rss
                    times = process.cpu_times()
                    self.cpu[process.pid] = times.user + times.system
            self.peak = max(self.peak, memory / 2**20)


def environment(folder: Path, mark: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_", "MLOPS_"))}
    quiet = {"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    path = os.pathsep.join([str(BIN), kept["PATH"]])
    return {**kept, **quiet, MARK: mark, "PATH": path, "PWD": str(folder), "PYTHONPATH": str(ROOT)}


def with_mlops(folder: Path, variables: dict[str, str], ports: tuple[int, int]) -> None:
    command = [sys.executable, "-m", "cli", "up", "--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1])]
    subprocess.run(command, cwd=folder, env=variables, check=True, stdout=subprocess.DEVNULL)


def by_hand(folder: Path, variables: dict[str, str], ports: tuple[int, int]) -> None:
    api = f"http://127.0.0.1:{ports[0]}/api"
    variables = {**variables, "PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": api}

    def start(name: str, *command: str) -> None:
        with (folder / f"{name}.log").open("wb") as log:
            subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=log, start_new_session=True)

    def call(*command: str) -> None:
        subprocess.run(
            command, cwd=folder, env=variables, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    start("server", "prefect", "server", "start", "--port", str(ports[0]))
    wait(lambda: answers(f"{api}/health"))
    call("prefect", "work-pool", "create", "local", "--type", "process")
    call("prefect", "--no-prompt", "deploy", "--all")
    start("worker", "prefect", "worker", "start", "--pool", "local")
    wait(lambda: "started!" in (folder / "worker.log").read_text(errors="replace"))
    artifacts = ["--artifacts-destination", str(folder / "artifacts")]
    start("mlflow", "mlflow", "server", "--port", str(ports[1]), *artifacts)
    wait(lambda: answers(f"http://127.0.0.1:{ports[1]}/health"))


def wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError("the stack was not up after 300 s")
        time.sleep(0.1)


def measure(side: Callable[[Path, dict[str, str], tuple[int, int]], None]) -> Cost:
    with cold_folder() as folder, socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        ports = (first.getsockname()[1], second.getsockname()[1])
        first.close()
        second.close()
        meter = Meter(folder.name)
        meter.thread.start()
        began = time.monotonic()
        try:
            side(folder, environment(folder, folder.name), ports)
            wall = time.monotonic() - began
            time.sleep(0.5)  # one more look of the meter
        finally:
            meter.stopped.set()
            meter.thread.join()
            left = meter.processes()
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=10)
        return Cost(wall, sum(meter.cpu.values()), meter.peak)


@contextlib.contextmanager
def cold_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="stack-start-"))
    try:
        (folder / "flows").mkdir()
        (folder / "flows" / "demo.py").write_text(FLOW)
        (folder / "prefect.yaml").write_text(PREFECT_YAML)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    sides = {"`mlops up`": with_mlops, "by hand, one after the other": by_hand}
    costs: dict[str, list[Cost]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            costs[name].append(measure(side))
            print(f"round {number + 1}: {name}: {costs[name][-1]}", file=sys.stderr)
    print("| cold start | wall s | processor s | peak memory MiB |\n|---|---|---|---|")
    medians = {
        name: [statistics.median(getattr(cost, key) for cost in seen) for key in ("wall", "cpu", "memory")]
        for name, seen in costs.items()
    }
    for name, values in medians.items():
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in values) + " |")
    ours, peer = medians.values()
    print("| ratio | " + " | ".join(f"{mine / theirs:.2f}" for mine, theirs in zip(ours, peer, strict=True)) + " |")


if __name__ == "__main__":
    main()
