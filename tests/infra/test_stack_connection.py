"""A checkout that is connected to a platform on a cluster: whom its commands talk to, and what ends that."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from stack_fixtures import make_checkout

from configs.problems import UserError
from infra.stack.connection import Connection, forget_ended, load_connection, logins_file, save_connection
from infra.stack.environment import client_environment, stack_environment, write_dotenv
from infra.stack.state import PREFECT, Part, Stack, save_stack

CLUSTER = "http://127.0.0.1:14200/api"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The state folder of a checkout that this very process leads to a cluster."""
    home = make_checkout(tmp_path / "checkout") / ".mlops"
    part = Part(os.getpid(), psutil.Process().create_time())
    save_connection(home, Connection(home.parent, "mlops", 14200, 15000, part))
    logins_file(home, "mlops").parent.mkdir()
    logins = {"prefect_auth": "mlops:secret", "mlflow_user": "mlops", "mlflow_password": "secret"}
    logins_file(home, "mlops").write_text(json.dumps(logins))
    return home


def end(home: Path) -> None:
    """Let the process that forwards be gone."""
    connection = load_connection(home)
    assert connection is not None
    save_connection(home, replace(connection, part=Part(connection.part.pid, connection.part.started - 60)))


def start_stack(home: Path) -> Stack:
    """Note a stack as running; whether it answers is asked by nobody here."""
    stack = Stack(home, home.parent, prefect_port=24200, mlflow_port=25000, parts={PREFECT: Part(os.getpid(), 0.0)})
    save_stack(stack)
    return stack


def test_commands_go_to_the_platform_and_what_runs_here_to_the_stack(home: Path) -> None:
    stack = start_stack(home)
    write_dotenv(stack)
    assert client_environment(home)["PREFECT_API_URL"] == CLUSTER
    assert CLUSTER in (home.parent / ".env").read_text()
    assert stack_environment(home)["PREFECT_API_URL"] == stack.prefect_api_url


def test_what_runs_here_needs_the_stack_and_is_never_sent_to_the_platform(home: Path) -> None:
    with pytest.raises(UserError, match="the stack: is not running\n    -> start it: mlops up"):
        stack_environment(home)
    save_connection(home, None)
    assert "PREFECT_API_URL" not in stack_environment(home)


def test_a_connection_that_has_ended_is_told_and_not_replaced_by_the_stack(home: Path) -> None:
    start_stack(home)
    end(home)
    with pytest.raises(UserError, match="connection to namespace mlops: has ended\n    -> mlops platform connect"):
        client_environment(home)


def test_bringing_up_the_stack_forgets_a_connection_that_has_ended_and_no_other(home: Path) -> None:
    stack = start_stack(home)
    forget_ended(home)
    assert load_connection(home) is not None
    end(home)
    forget_ended(home)
    write_dotenv(stack)
    assert stack.prefect_api_url in (home.parent / ".env").read_text()
    assert client_environment(home)["PREFECT_API_URL"] == stack.prefect_api_url
