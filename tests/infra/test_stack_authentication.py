"""A stack that other machines can reach asks for a password, everywhere, and tells it to nobody."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from stack_fixtures import bring_up, client_variables, comes_to, mlops, start_run

from infra.stack import processes
from infra.stack.credentials import credentials_file
from infra.stack.environment import client_environment
from infra.stack.state import Stack, is_loopback


def _status(url: str, user: str = "", password: str = "", host: str = "") -> int:
    request = urllib.request.Request(url)
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    if host:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_both_servers_ask_for_the_password_and_flows_still_run(checkout: Path) -> None:
    stack = bring_up(checkout, host="0.0.0.0").stack
    values = json.loads(credentials_file(stack.home).read_text())
    prefect = f"{stack.prefect_api_url}/work_pools/local"
    mlflow = f"{stack.mlflow_url}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert (_status(prefect), _status(prefect, "admin", "wrong")) == (401, 401)
    assert _status(prefect, "admin", values["prefect_password"]) == 200
    assert (_status(mlflow), _status(mlflow, "admin", "wrong")) == (401, 401)
    assert _status(mlflow, "admin", values["mlflow_password"]) == 200
    assert _status(mlflow, "admin", values["mlflow_password"], host="evil.example") == 403, "no DNS rebinding"

    run = start_run(stack)
    comes_to(stack, run, "Completed")
    script = "import mlflow\nwith mlflow.start_run(): mlflow.log_text('x', 'note.txt')\n"
    python = str(Path(client_environment(stack.home)["PATH"].split(":")[0], "python"))
    subprocess.run([python, "-c", script], cwd=checkout, env=client_variables(stack), check=True, capture_output=True)

    shown = mlops(checkout, "status").stdout + mlops(checkout, "up").stdout
    assert "Completed" in shown
    secrets = [value for key, value in values.items() if key != "user"]
    told = [shown, (stack.home / "stack.json").read_text()]
    told += [path.read_text(errors="replace") for path in (stack.home / "logs").iterdir()]
    told += [" ".join(process.cmdline()) for process in processes.marked(stack.home)]
    assert len(told) >= 8
    assert not [text for text in told for secret in secrets if secret in text]

    for path in (credentials_file(stack.home), checkout / ".env"):
        assert path.stat().st_mode & 0o077 == 0, path
    refused = mlops(checkout, "up", "--host", "127.0.0.1")
    assert refused.returncode == 1
    assert "run `mlops down` first" in refused.stderr


def test_without_being_asked_the_servers_listen_on_loopback_only(running_stack: Stack) -> None:
    listening = {
        connection.laddr.ip
        for process in processes.marked(running_stack.home)
        for connection in psutil.Process(process.pid).net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening
    assert all(is_loopback(address) for address in listening)
