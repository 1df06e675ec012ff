"""The agents of a gang's workers as processes on loopback addresses, each killed as a pod would be."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra.ddp.agent import PASSING, UNSEEN
from infra.ddp.command import torchrun_options
from infra.ddp.launch import Gang
from infra.ddp.worker_log import EVENT

ROOT = Path(__file__).parents[2]
TOY = "tests/kubernetes/toy.py"


class Workers:
    """Starts and kills the agents of one gang."""

    def __init__(self, folder: Path, gang: Gang) -> None:
        self.folder, self.gang = folder, gang
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._running: list[subprocess.Popen[bytes]] = []
        self._started = 0

    def start(self, index: int, *, wait_s: int = 60) -> subprocess.Popen[bytes]:
        self._started += 1
        log_dir = self.folder / f"ranks-{self._started}"
        peers = "127.0.1.{}"
        nodes = f"{self.gang.least}:{self.gang.most}"
        endpoint = f"{peers.format(0)}:{self.port}"
        options = torchrun_options(
            self.gang, nodes=nodes, processes=1, endpoint=endpoint, log_dir=log_dir, more={"join_timeout": "60"}
        )
        own = {"peers": peers, "index": index, "most": self.gang.most, "port": self.port, "restarts": 3}
        own |= {"wait-s": wait_s, "log-dir": log_dir, "log": self.log(index)}
        agent = [f"--{key}={value}" for key, value in own.items()]
        places = {"MLOPS_CHECKPOINTS": "checkpoints", "MLOPS_OUTPUT": "output", "MLOPS_EVENTS": "events.jsonl"}
        environment = {name: str(self.folder / place) for name, place in places.items()}
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.ddp.agent", *agent, "--", *options],
            cwd=ROOT,
            env={**os.environ, **environment, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._running.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End an agent and all below it at once."""
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            member.kill()
        psutil.wait_procs(family, timeout=10)
        process.wait(10)

    def end(self, process: subprocess.Popen[bytes], seconds: float = 120) -> int:
        """Wait for an agent's end and return its exit code; what all workers said is in the error."""
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            said = "\n".join(f"worker {index}:\n{self.said(index)}" for index in range(self.gang.most))
            raise AssertionError(f"at work after {seconds} s\n{said}") from None

    def log(self, index: int) -> Path:
        return self.folder / f"worker-{index}.log"

    def said(self, index: int) -> str:
        return self.log(index).read_text() if self.log(index).exists() else ""

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                self.kill(process)


@pytest.fixture
def workers(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Workers]:
    least, program = request.param
    gang = Gang(
        name=f"toy-{os.getpid()}",
        flow_run_id="run-1",
        program=(TOY, *program),
        least=least,
        most=least,
        processes=1,
        cpu=1,
        memory=1 << 30,
        gpus=0,
        backend="gloo",
        checkpoints=tmp_path,  # type: ignore[arg-type]
        max_restarts=3,
        rendezvous_s=60,
        below_least_s=60,
    )
    found = Workers(tmp_path, gang)
    yield found
    found.close()


def until(holds: Callable[[], bool], seconds: float = 90) -> None:
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(2, ("--steps", "60", "--pause", "0.1"))], indirect=True)
def test_a_lost_host_of_the_rendezvous_is_found_again_where_it_is_replaced(workers: Workers) -> None:
    host, other = workers.start(0), workers.start(1)
    until(lambda: "step 5\n" in workers.said(0))
    workers.kill(host)
    again = workers.start(0)
    assert workers.end(again) == 0
    assert workers.end(other) == 0
    assert "starting torchrun again, 1 of 3" in workers.said(1)
    begun = [line for line in workers.said(1).splitlines() if "begins at step" in line]
    assert len(begun) == 2
    assert "begins at step 0 " not in begun[1], "it went on from the checkpoint"
    steps = [json.loads(line)["epoch"] for line in (workers.folder / "events.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    lines = workers.said(0).splitlines()
    told = {json.loads(line.removeprefix(EVENT))["epoch"] for line in lines if line.startswith(EVENT)}
    assert told == set(range(1, 61)), "the new host tells the events of the lost one, too"


@pytest.mark.parametrize("workers", [(1, ("--fail-rank", "0", "--fail-step", "0"))], indirect=True)
def test_it_ends_with_the_exit_code_of_the_rank(workers: Workers) -> None:
    assert workers.end(workers.start(0)) == 3
    assert "[rank 0] the toy is broken here" in workers.said(0)


@pytest.mark.parametrize(
    "workers", [(1, ("--fail-rank", "0", "--fail-step", "0", "--fail-code", str(UNSEEN)))], indirect=True
)
def test_a_rank_that_fails_is_none_whose_node_went_off(workers: Workers) -> None:
    assert workers.end(workers.start(0)) == 1
    assert f"failed (exitcode: {UNSEEN})" in workers.said(0)


@pytest.mark.parametrize("workers", [(3, ())], indirect=True)
def test_a_host_that_never_comes_is_told(workers: Workers) -> None:
    assert workers.start(1, wait_s=1).wait(30) == PASSING
    assert "worker 0, which hosts the rendezvous, does not answer on port" in workers.said(1)
    assert "gave up after 1 s" in workers.said(1)
