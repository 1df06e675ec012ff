"""`mlops up` as a user calls it: cold, twice at once, again, after losses, interrupted, and when it cannot."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from stack_fixtures import free_ports, mlops, mlops_environment, until

from infra.stack import processes
from infra.stack.connection import Connection, load_connection, save_connection
from infra.stack.state import MLFLOW, PREFECT, WORKER, Part, load_stack


def test_twice_at_once_again_and_after_each_child_was_killed(checkout: Path) -> None:
    home = checkout / ".mlops"
    ports = [str(port) for port in free_ports(2)]
    command = [sys.executable, "-m", "cli", "up", "--prefect-port", ports[0], "--mlflow-port", ports[1]]
    both = [
        subprocess.Popen(command, cwd=checkout, env=mlops_environment(checkout), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = sorted((process.communicate(timeout=300)[0] for process in both), key=len)
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("for another mlops command" in text for text in said) == 1, "the second waits"
    assert sum("already running; nothing to do" in text for text in said) == 1, "and finds nothing to do"
    assert len(processes.marked(home)) == 3, "server, server, worker"

    first = load_stack(home)
    assert first
    for name in (PREFECT, MLFLOW, WORKER):
        victim = processes.find(first.parts[name])
        assert victim
        victim.kill()
    processes.wait_gone([process for part in first.parts.values() if (process := processes.find(part))], 10)
    gone = Part(first.parts[PREFECT].pid, first.parts[PREFECT].started)
    save_connection(home, Connection(checkout, "mlops", *free_ports(2), gone))
    repaired = mlops(checkout, "up")
    assert repaired.returncode == 0, repaired.stderr
    assert load_connection(home) is None, "a connection to a cluster that has ended is forgotten"
    assert first.prefect_api_url in (checkout / ".env").read_text()
    second = load_stack(home)
    assert second
    assert (second.prefect_url, second.mlflow_url) == (first.prefect_url, first.mlflow_url)
    assert all(processes.is_running(second.parts[name]) for name in (PREFECT, MLFLOW, WORKER))

    for _ in range(2):
        assert mlops(checkout, "down").returncode == 0
        assert processes.marked(home) == []
        assert load_stack(home) is None
    assert (home / "prefect" / "prefect.db").exists(), "nothing is lost"


def test_a_named_port_that_is_taken_names_its_holder(checkout: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        refused = mlops(checkout, "up", "--prefect-port", str(port))
    assert refused.returncode == 1
    assert f"port {port} is held by pid {os.getpid()}" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert processes.marked(checkout / ".mlops") == []


def test_a_child_that_dies_is_told_at_once_with_its_last_lines(checkout: Path) -> None:
    (checkout / ".mlops").mkdir()
    (checkout / ".mlops" / "mlflow").write_text("not a folder")
    failed = mlops(checkout, "up")
    assert failed.returncode == 1
    assert "mlflow ended with status 1 before it was ready" in failed.stderr
    assert "    | FileExistsError" in failed.stderr or "    | NotADirectoryError" in failed.stderr
    assert processes.marked(checkout / ".mlops") == [], "what had been started is stopped"
    assert load_stack(checkout / ".mlops") is None


def test_ctrl_c_leaves_no_orphan(checkout: Path) -> None:
    home = checkout / ".mlops"
    command = [sys.executable, "-m", "cli", "up"]
    process = subprocess.Popen(
        command, cwd=checkout, env=mlops_environment(checkout), stderr=subprocess.PIPE, text=True
    )
    until("all three children", lambda: (stack := load_stack(home)) and len(stack.parts) == 3)
    process.send_signal(signal.SIGINT)
    assert "Traceback" not in process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert processes.marked(home) == []
    assert load_stack(home) is None


def test_other_lines_of_the_users_env_file_stay(checkout: Path) -> None:
    from infra.stack.environment import write_dotenv
    from infra.stack.state import Stack

    (checkout / ".env").write_text("MINE=1\n")
    stack = Stack(home=checkout / ".mlops", checkout=checkout, prefect_port=1234)
    for port in (1234, 4321):
        write_dotenv(Stack(**{**vars(stack), "prefect_port": port}))
    text = (checkout / ".env").read_text()
    assert text.startswith("MINE=1\n")
    assert text.count("PREFECT_API_URL") == 1
    assert "http://127.0.0.1:4321/" in text


def test_help_lists_the_commands_without_importing_them(tmp_path: Path) -> None:
    listing = (
        "import sys, cli.main as m; app = m.application(['--help']); import json; print(json.dumps([*sys.modules]))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", listing], env=mlops_environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert not {"prefect", "mlflow", "torch", "cli.up", "psutil"} & set(json.loads(loaded.stdout))
    shown = mlops(tmp_path, "--help")
    assert all(name in shown.stdout for name in ("up", "down", "status", "doctor"))
