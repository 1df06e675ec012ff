"""A running stack: what clients see of it, and what happens to runs when processes or time are lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from stack_fixtures import bring_up, client_variables, comes_to, start_run, state_of, until

from configs.problems import UserError
from infra.stack import processes, rest
from infra.stack.automations import CRASHED, HEARTBEAT, PUBLISHED, SILENT
from infra.stack.environment import client_environment
from infra.stack.returned import set_running_again
from infra.stack.state import Part, Stack, load_stack


def test_plain_prefect_commands_find_the_server(stack: Stack, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    binaries = client_environment(stack.home)["PATH"].split(os.pathsep)[0]
    clean = {"HOME": str(home), "PATH": f"{binaries}{os.pathsep}{os.defpath}"}
    listed = subprocess.run(
        ["prefect", "deployment", "ls"], cwd=stack.checkout, env=clean, capture_output=True, text=True, check=True
    )
    assert "demo/local" in listed.stdout
    assert not list(home.iterdir()), "nothing is written to the user's home"
    ignored = subprocess.run(["git", "check-ignore", ".env"], cwd=stack.checkout, check=False)
    assert ignored.returncode == 0
    assert (stack.checkout / ".env").stat().st_mode & 0o777 == 0o600


def test_a_watched_run_shows_its_end_and_ends_with_its_status(stack: Stack) -> None:
    command = ["prefect", "deployment", "run", "demo/local", "--watch"]
    options = {"cwd": stack.checkout, "env": client_variables(stack), "capture_output": True, "text": True}
    good = subprocess.run(command, **options, check=False)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "Beginning flow run" in good.stdout, "log lines are streamed"
    bad = subprocess.run([*command, "-p", "folder=/nowhere/at/all"], **options, check=False)
    assert bad.returncode == 1


def test_mlflow_keeps_metrics_and_artifacts_under_the_state_folder(stack: Stack) -> None:
    script = (
        "import mlflow\n"
        "with mlflow.start_run() as run:\n"
        "    mlflow.log_metric('mAP50', 0.5)\n"
        "    mlflow.log_text('hello', 'note.txt')\n"
        "print(mlflow.artifacts.load_text(f'runs:/{run.info.run_id}/note.txt'))\n"
    )
    command = [client_python(stack), "-c", script]
    logged = subprocess.run(
        command, cwd=stack.checkout, env=client_variables(stack), capture_output=True, text=True, check=False
    )
    assert "hello" in logged.stdout, logged.stderr
    assert list((stack.home / "mlflow" / "artifacts").rglob("note.txt"))
    assert not (stack.checkout / "mlruns").exists()


def client_python(stack: Stack) -> str:
    return str(Path(client_environment(stack.home)["PATH"].split(os.pathsep)[0], "python"))


def test_pids_that_were_given_to_another_process_are_not_ours() -> None:
    me = psutil.Process()
    assert processes.is_running(Part(me.pid, me.create_time()))
    assert not processes.is_running(Part(me.pid, me.create_time() - 60))


def test_automations_are_there_once_and_training_follows_its_deployment(stack: Stack) -> None:
    def names() -> list[str]:
        return sorted(automation["name"] for automation in rest.prefect(stack, "/automations/filter", {}))

    assert names() == [CRASHED]
    deployments = stack.checkout / "prefect.yaml"
    flow = stack.checkout / "flows" / "train.py"
    flow.write_text(
        "from prefect import flow\n\n\n@flow(name='train-forklift')\ndef train_forklift() -> None:\n    pass\n"
    )
    before = deployments.read_text()
    deployments.write_text(
        before + "  - name: local\n    entrypoint: flows/train.py:train_forklift\n    work_pool: {name: local}\n"
    )
    assert set(bring_up(stack.checkout).seconds) == {"deployments"}, "only what changed is done again"
    assert names() == sorted([CRASHED, PUBLISHED])
    _emit(stack, "dataset.published", "dataset.warehouse")
    deployment = rest.prefect(stack, "/deployments/name/train-forklift/local")
    wanted = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    runs = until("the training to start", lambda: rest.prefect(stack, "/flow_runs/filter", wanted))
    comes_to(stack, runs[0]["id"], "Completed")


def _emit(stack: Stack, name: str, resource: str) -> None:
    event = {
        "event": name,
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": resource},
        "id": str(uuid4()),
    }
    request = urllib.request.Request(
        f"{stack.prefect_api_url}/events", json.dumps([event]).encode(), {"Content-Type": "application/json"}
    )
    assert urllib.request.urlopen(request).status == 204


def test_of_missed_scheduled_runs_only_the_newest_is_run(stack: Stack) -> None:
    worker = processes.find(stack.parts["worker"])
    assert worker
    asked = start_run_without_worker(stack, worker)
    missed = _back_dated(stack, count=4)
    bring_up(stack.checkout)
    comes_to(stack, missed[-1], "Completed")
    assert [state_of(stack, run) for run in missed] == ["Skipped", "Skipped", "Skipped", "Completed"]
    comes_to(stack, asked, "Completed")


def start_run_without_worker(stack: Stack, worker: psutil.Process) -> str:
    worker.kill()
    processes.wait_gone([worker], 10)
    return start_run(stack)


def _back_dated(stack: Stack, count: int) -> list[str]:
    """Runs as the scheduler makes them, 5, 4, 3 ... hours ago; oldest first."""
    ids = [start_run(stack) for _ in range(count)]
    with sqlite3.connect(stack.home / "prefect" / "prefect.db", timeout=30) as database:
        for hours, run in zip(range(count + 1, 1, -1), ids, strict=True):
            moment = (datetime.now(UTC) - timedelta(hours=hours)).strftime("%Y-%m-%d %H:%M:%S.%f")
            changed = database.execute(
                "UPDATE flow_run SET auto_scheduled = 1, expected_start_time = ?, next_scheduled_start_time = ?"
                " WHERE id = ?",
                (moment, moment, run),
            )
            assert changed.rowcount == 1
    database.close()
    return ids


def test_a_run_whose_worker_vanished_before_it_began_is_crashed_by_the_next_worker(stack: Stack) -> None:
    worker = processes.find(stack.parts["worker"])
    assert worker
    run = start_run_without_worker(stack, worker)
    rest.prefect(stack, f"/flow_runs/{run}/set_state", {"state": {"type": "PENDING"}, "force": True})
    bring_up(stack.checkout)
    assert state_of(stack, run) == "Crashed"


def test_a_run_that_was_taken_for_lost_is_running_again_at_its_next_heartbeat(stack: Stack) -> None:
    async def look() -> int:
        async with get_client() as client:
            return await set_running_again(client, {run, other})

    def crashed(message: str) -> str:
        wanted = {"state": {"type": "CRASHED", "name": "Crashed", "message": message}}
        made: str = rest.prefect(stack, f"/deployments/{deployment}/create_flow_run", wanted)["id"]
        return made

    deployment = rest.prefect(stack, "/deployments/name/demo/local")["id"]
    run, other = crashed(f"{SILENT}: gone"), crashed("Stopped by `mlops down`.")
    with temporary_settings({PREFECT_API_URL: stack.prefect_api_url}):
        assert asyncio.run(look()) == 0, "no sign of life has come"
        for one in (run, other):
            _emit(stack, HEARTBEAT, f"prefect.flow-run.{one}")
        until("the heartbeat to arrive", lambda: asyncio.run(look()))
    assert (state_of(stack, run), state_of(stack, other)) == ("Running", "Crashed")
    rest.prefect(stack, f"/flow_runs/{run}/set_state", {"state": {"type": "COMPLETED"}, "force": True})


@pytest.mark.slow
def test_a_run_whose_process_and_worker_vanish_is_crashed_within_90_s_and_frees_its_slot(
    stack: Stack, tmp_path: Path
) -> None:
    lost = start_run(stack, seconds=600, folder=str(tmp_path))
    pid = int(until("the run to begin", lambda: [path.name for path in tmp_path.iterdir()])[0])
    heartbeat = {
        "filter": {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [f"prefect.flow-run.{lost}"]}}
    }
    until("its first heartbeat", lambda: rest.prefect(stack, "/events/filter", heartbeat)["total"])
    worker = processes.find(stack.parts["worker"])
    assert worker
    worker.kill()
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    processes.wait_gone([worker], 10)
    bring_up(stack.checkout)
    following = start_run(stack)
    comes_to(stack, lost, "Crashed", 90 - (time.monotonic() - killed))
    comes_to(stack, following, "Completed")


def test_a_stack_whose_file_was_removed_is_not_started_beside_itself(stack: Stack) -> None:
    file = stack.home / "stack.json"
    kept = file.read_text()
    file.unlink()
    try:
        with pytest.raises(UserError, match=rf"{stack.home}: was changed or removed .*{stack.parts['prefect'].pid}"):
            bring_up(stack.checkout)
    finally:
        file.write_text(kept)
    assert (stack.home / "prefect").stat().st_mode & 0o777 == 0o700


def test_the_stack_file_holds_no_more_than_others_need(stack: Stack) -> None:
    assert load_stack(stack.home) == stack
    assert load_stack(stack.home / "elsewhere") is None
