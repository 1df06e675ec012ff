"""A port that another stack has taken: nobody's runs go there, who holds it is told, and the stack moves away."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import free_port
from stack_fixtures import ROOT, bring_up, comes_to, make_checkout, mlops, start_run, until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from configs.problems import UserError
from infra.stack import environment, processes, rest
from infra.stack.identity import ANOTHERS, TRY_AGAIN_LATER, for_people
from infra.stack.state import MLFLOW, PREFECT, WORKER, Stack, load_stack
from infra.tracking.access import mlflow_server
from infra.tracking.entities import UnreachableError


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _of_another(stack: Stack, folder: Path) -> Stack:
    """Another checkout's stack, as it would be at the same ports."""
    return dataclasses.replace(stack, home=folder / ".mlops", checkout=folder, parts={})


def test_a_server_answers_people_and_its_own_clients_alone(stack: Stack, tmp_path: Path) -> None:
    for own, path in ((stack.prefect_api_url, "/health"), (stack.mlflow_api_url, "/health")):
        assert (rest.answers(own + path), rest.answers(for_people(own) + path)) == (True, True)
    other = _of_another(stack, tmp_path)
    assert (_status(f"{other.prefect_api_url}/health"), _status(f"{other.mlflow_api_url}/health")) == (503, 503)
    with pytest.raises(rest.RefusedError, match=ANOTHERS):
        rest.prefect(other, "/work_pools/", {"name": "astray", "type": "process"})
    with pytest.raises(rest.RefusedError, match="404"):
        rest.prefect(stack, "/work_pools/astray")
    assert asyncio.run(_closed_by(other)) == TRY_AGAIN_LATER, "as a connection that is lost"


async def _closed_by(stack: Stack) -> int:
    async with connect(f"{stack.prefect_api_url}/events/in".replace("http", "ws", 1)) as socket:
        with pytest.raises(ConnectionClosedError) as closed:
            await socket.recv()
        return closed.value.rcvd.code if closed.value.rcvd else 0


@pytest.fixture
def stranger(stack: Stack, tmp_path: Path) -> Iterator[tuple[Stack, int]]:
    """The MLflow server of another checkout at the port of this one's, which was killed; and its pid."""
    other = _of_another(stack, make_checkout(tmp_path / "other"))
    own = processes.find(stack.parts[MLFLOW])
    assert own
    own.kill()
    processes.wait_gone([own], 10)
    arguments = [str(other.home / "mlflow"), "--host", other.host, "--port", str(other.mlflow_port)]
    variables = environment.mlflow_server_environment(other)
    part = processes.spawn("infra.stack.mlflow_server", arguments, variables, other.log(MLFLOW), other.checkout)
    try:
        until("the other's server", lambda: rest.answers(f"{other.mlflow_api_url}/health"))
        yield other, part.pid
    finally:
        processes.stop(processes.marked(other.home), 5)


def test_on_a_cluster_a_server_is_no_stacks(tmp_path: Path) -> None:
    """As the platform's Deployment starts it."""
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLOPS_"))}
    own = {
        "PREFECT_HOME": str(tmp_path),
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
    }
    command = [sys.executable, "-m", "infra.stack.prefect_server"]
    with subprocess.Popen(command, cwd=ROOT, env={**kept, **own}) as server:
        try:
            until(
                "its health", lambda: server.poll() is not None or rest.answers(f"http://127.0.0.1:{port}/api/health")
            )
            assert server.poll() is None
        finally:
            server.kill()


def test_a_stack_whose_port_was_taken_moves_away_with_its_worker_but_from_no_run(
    stack: Stack, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(stack, seconds=600, folder=str(tmp_path))
    began = until("the run to begin", lambda: [path.name for path in tmp_path.iterdir() if path.name.isdigit()])
    other, pid = request.getfixturevalue("stranger")
    held = f"port {stack.mlflow_port} is held by pid {pid} ("

    for variable, value in environment.client_environment(stack.home).items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(UnreachableError, match=ANOTHERS):
        mlflow_server(stack.home).experiment("astray")
    assert [found["name"] for found in rest.mlflow(other, "/experiments/search?max_results=9")["experiments"]] == [
        "Default"
    ]
    shown = mlops(stack.checkout, "status").stdout
    assert held in shown
    assert f" in {other.checkout})" in shown

    with pytest.raises(UserError) as refused:
        bring_up(stack.checkout)
    assert f"cannot move: run {run} goes on" in str(refused.value)
    assert held in str(refused.value)

    runs = [process for process in processes.marked(stack.home) if str(process.pid) == began[0]]
    processes.stop(runs, 30)
    comes_to(stack, run, "Crashed")
    bring_up(stack.checkout)
    moved = load_stack(stack.home)
    assert moved
    assert moved.mlflow_port != stack.mlflow_port
    assert moved.parts[PREFECT] == stack.parts[PREFECT]
    worker = processes.find(moved.parts[WORKER])
    assert worker
    assert worker.environ()["MLFLOW_TRACKING_URI"] == moved.mlflow_api_url, "the worker and its runs know"
    assert rest.mlflow(moved, "/experiments/search?max_results=9")["experiments"]
