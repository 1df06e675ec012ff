"""A running stack for tests: real servers and a real worker, in a checkout and on ports of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.stack import processes, rest
from infra.stack.environment import client_environment
from infra.stack.settling import Wanted
from infra.stack.start import Started, up
from infra.stack.state import Stack, load_stack
from infra.stack.stop import down

ROOT = Path(__file__).resolve().parents[1]

FLOW = '''
import os
import time
from pathlib import Path

from prefect import flow


@flow(name="demo")
def demo(seconds: float = 0, folder: str = "") -> None:
    """Sleeps, and notes its pid in `folder` when it begins."""
    if folder:
        Path(folder, str(os.getpid())).touch()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)
'''

PREFECT_YAML = """
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: "{{ $PWD }}"
deployments:
  - name: local
    entrypoint: flows/demo.py:demo
    work_pool: {name: local}
    concurrency_limit: 1
"""


def make_checkout(folder: Path) -> Path:
    """A git repository with one flow and its deployment."""
    (folder / "flows").mkdir(parents=True)
    (folder / "flows" / "demo.py").write_text(FLOW)
    (folder / "prefect.yaml").write_text(PREFECT_YAML)
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    return folder


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def silent(part: str, state: str, detail: str) -> None:
    """A report that nobody reads."""


def bring_up(checkout: Path, host: str | None = None) -> Started:
    """`mlops up` in this process, on free ports at the first call."""
    home = checkout / ".mlops"
    ports = [None, None] if (home / "stack.json").exists() else free_ports(2)
    return up(checkout, home, Wanted(host, *ports), silent)


def mlops(checkout: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command as a user calls it, in `checkout`."""
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        cwd=checkout,
        env=mlops_environment(checkout, **variables),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def mlops_environment(checkout: Path, **variables: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_", "MLOPS_"))}
    return {**kept, "PWD": str(checkout), "PYTHONPATH": str(ROOT), "COLUMNS": "100", **variables}


def until(what: str, found: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait until ``found()`` is true and return it; fail with ``what`` was awaited."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"after {seconds} s still waiting for {what}"
        time.sleep(0.1)
    return value


def start_run(stack: Stack, **parameters: object) -> str:
    """Start deployment demo/local; returns the flow run's id."""
    deployment = rest.prefect(stack, "/deployments/name/demo/local", timeout=30)
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    run: str = rest.prefect(stack, f"/deployments/{deployment['id']}/create_flow_run", body, timeout=30)["id"]
    return run


def state_of(stack: Stack, run: str) -> str:
    name: str = rest.prefect(stack, f"/flow_runs/{run}", timeout=30)["state_name"]
    return name


def comes_to(stack: Stack, run: str, state: str, seconds: float = 120) -> None:
    """Wait until a run is in a state; what it went through and what the worker said is in the error."""
    deadline = time.monotonic() + seconds
    while (now := state_of(stack, run)) != state:
        if time.monotonic() > deadline:
            states = rest.prefect(stack, f"/flow_run_states/?flow_run_id={run}", timeout=30)
            told = [f"{one['timestamp']} {one['name']}: {one['message']}" for one in states]
            said = stack.log("worker").read_text(encoding="utf-8").splitlines()[-40:]
            raise AssertionError("\n".join([f"after {seconds} s {now}, not {state}", *told, *said]))
        time.sleep(0.1)


def client_variables(stack: Stack) -> dict[str, str]:
    """The whole environment of a client of the stack."""
    return {**mlops_environment(stack.checkout), **client_environment(stack.home)}


@pytest.fixture(scope="session")
def running_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all tests that leave it running."""
    checkout = make_checkout(tmp_path_factory.mktemp("stack") / "checkout")
    try:
        yield bring_up(checkout).stack
    finally:
        down(checkout / ".mlops", silent)


@pytest.fixture
def stack(running_stack: Stack) -> Stack:
    """The session's stack, whole again whatever the last test has done to it."""
    if not all(processes.is_running(part) for part in _parts(running_stack.home)):
        bring_up(running_stack.checkout)
    current = load_stack(running_stack.home)
    assert current
    return current


def _parts(home: Path) -> list[processes.Part | None]:
    current = load_stack(home)
    return [current.parts.get(name) if current else None for name in ("prefect", "mlflow", "worker")]


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A checkout of its own; whatever runs for it at the end of the test is stopped."""
    folder = make_checkout(tmp_path / "checkout")
    try:
        yield folder
    finally:
        down(folder / ".mlops", silent)
        processes.stop(processes.marked(folder / ".mlops"), 5)
