"""The environment variables that make clients and servers of the stack what they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from configs.problems import Problem, UserError
from infra.stack.connection import Connection, connection_variables, load_connection
from infra.stack.credentials import USER, load_credentials, write_private
from infra.stack.ports import own_names
from infra.stack.processes import MARK, is_running
from infra.stack.state import LOOPBACK, Stack, load_stack, read_stack, stack_id

BEGIN = "# >>> mlops: where the stack is, written by `mlops up`"
END = "# <<< mlops"
HEARTBEAT_S = 30  # the least that Prefect allows

# Nothing calls home, nothing is fetched at run time.
QUIET = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_CLI_HINT": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "ORT_DISABLE_TELEMETRY": "1",
    "YOLO_OFFLINE": "true",
}

PREFECT_SERVER = {
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    # The page asks the address it came from, under whatever name or tunnel that is.
    "PREFECT_SERVER_UI_API_URL": "/api",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # `prefect deployment run --watch` shows log lines only with both.
    "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
    "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
}
"""What every Prefect server of ours is, wherever it runs."""

MLFLOW_SERVER = {
    # Jobs are for judging language models: eight more processes.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""What every MLflow server of ours is, wherever it runs."""


def client_environment(home: Path) -> dict[str, str]:
    """What to add to a child's environment so that it talks to the servers of ``home``, and to nobody else.

    Those are the platform that `mlops platform connect` leads to, else the stack; with neither it lacks the servers'
    addresses. Holds the passwords where the servers ask for them: for a child's environment only, never for a command
    line or a log.

    Raises:
        UserError: the connection to the platform has ended: which servers are meant, a person has to say.
    """
    connection = load_connection(home)
    if connection is None:
        return stack_environment(home)
    if not is_running(connection.part):
        remedy = "mlops platform connect leads there again, mlops platform disconnect back to the stack"
        raise UserError(Problem(f"connection to namespace {connection.namespace}", "has ended", remedy))
    return _without_servers(home) | connection_variables(home, connection) | _no_proxy(LOOPBACK)


def stack_environment(home: Path) -> dict[str, str]:
    """As :func:`client_environment`, but always of the stack: for what runs on this machine.

    Raises:
        UserError: the stack does not run, and `.env` leads to a platform meanwhile.
    """
    environment, stack = _without_servers(home), load_stack(home)
    if stack is not None:
        return environment | _addresses(stack) | _no_proxy(stack.host)
    if load_connection(home) is not None:
        raise UserError(Problem("the stack", "is not running", "start it: mlops up"))
    return environment


def _without_servers(home: Path) -> dict[str, str]:
    return {
        **QUIET,
        "MLOPS_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
        "PATH": _path(),
    }


def _no_proxy(host: str) -> dict[str, str]:
    """A proxy for the world outside must not be asked for a server on this machine."""
    local = [*filter(None, os.environ.get("NO_PROXY", "").split(",")), "localhost", "127.0.0.1", host]
    names = ",".join(dict.fromkeys(local))
    return {"NO_PROXY": names, "no_proxy": names}


def _path() -> str:
    own = str(Path(sys.executable).parent)
    rest = [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder != own]
    return os.pathsep.join([own, *rest])


def _addresses(stack: Stack) -> dict[str, str]:
    addresses = {
        "PREFECT_API_URL": stack.prefect_api_url,
        "PREFECT_UI_URL": stack.prefect_url,
        "MLFLOW_TRACKING_URI": stack.mlflow_api_url,
    }
    if stack.authenticated:
        credentials = load_credentials(stack.home)
        addresses |= {
            "PREFECT_API_AUTH_STRING": credentials.prefect_auth_string,
            "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": credentials.mlflow_password,
        }
    return addresses


def child_environment(stack: Stack) -> dict[str, str]:
    """The whole environment of a process that belongs to the stack itself, and is found again by its mark."""
    foreign = ("PREFECT_", "MLFLOW_", "_MLFLOW_")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    return {
        **inherited,
        **_without_servers(stack.home),
        **_no_proxy(stack.host),
        **_addresses(stack),
        MARK: stack_id(stack.home),
        # prefect.yaml says `{{ $PWD }}` for the checkout; a caller's own PWD may be another folder.
        "PWD": str(stack.checkout),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": import_path(stack.checkout),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_CLI_PROMPT": "false",
    }


def import_path(*first: Path) -> str:
    """``first``, then the folder of this very code, which need not be the one that is installed, then PYTHONPATH."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    folders = [*map(str, first), str(Path(__file__).resolve().parents[2]), *inherited]
    return os.pathsep.join(dict.fromkeys(filter(None, folders)))


def prefect_server_environment(stack: Stack) -> dict[str, str]:
    environment = {
        **child_environment(stack),
        **PREFECT_SERVER,
        "PREFECT_SERVER_API_HOST": stack.host,
        "PREFECT_SERVER_API_PORT": str(stack.prefect_port),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{stack.home / 'prefect' / 'prefect.db'}",
    }
    if stack.authenticated:
        environment["PREFECT_SERVER_API_AUTH_STRING"] = load_credentials(stack.home).prefect_auth_string
        origins = [f"http://{name}:{stack.prefect_port}" for name in own_names(stack.host)]
    else:
        origins = [f"http://{name}:{stack.prefect_port}" for name in ("localhost", "127.0.0.1", stack.host)]
    # The default is every origin: any page in the user's browser could start runs.
    environment["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(dict.fromkeys(origins))
    return environment


def mlflow_server_environment(stack: Stack) -> dict[str, str]:
    environment = child_environment(stack) | MLFLOW_SERVER
    if stack.authenticated:
        credentials = load_credentials(stack.home)
        names = own_names(stack.host)
        environment |= {
            "MLFLOW_AUTH_CONFIG_PATH": str(stack.home / "mlflow" / "auth.ini"),
            "MLFLOW_AUTH_ADMIN_USERNAME": USER,
            "MLFLOW_AUTH_ADMIN_PASSWORD": credentials.mlflow_password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": credentials.mlflow_secret_key,
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join([*names, *(f"{name}:*" for name in names)]),
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{name}:{stack.mlflow_port}" for name in names),
        }
    return environment


def write_dotenv(stack: Stack) -> Path:
    """Tell plain ``prefect`` commands in the checkout where the server is: ``.env``, which Prefect reads there.

    Only the lines between two markers are ours. The file is private, for it holds the password where there is one,
    and is kept out of git without touching a tracked file.
    """
    connection = load_connection(stack.home)
    # A connection to a cluster lasts until it is ended, whatever the stack does meanwhile.
    addresses = connection_variables(stack.home, connection) if connection else _addresses(stack)
    return _write_dotenv(stack.checkout, stack.home, addresses)


def write_dotenv_of(home: Path, connection: Connection) -> Path:
    """Tell plain ``prefect`` commands of the platform on a cluster, as :func:`write_dotenv` does of the stack."""
    return _write_dotenv(connection.checkout, home, connection_variables(home, connection))


def put_dotenv_back(home: Path, checkout: Path) -> None:
    """Tell plain ``prefect`` commands of the stack again, or of nothing where there was never a stack."""
    stack = read_stack(home)
    path = checkout / ".env"
    if stack is not None and stack.prefect_port:
        _write_dotenv(checkout, home, _addresses(stack))
    elif path.exists():
        rest = "".join(f"{line}\n" for line in _foreign_lines(path))
        if rest:
            write_private(path, rest)
        else:
            path.unlink()


def _write_dotenv(checkout: Path, home: Path, addresses: Mapping[str, str]) -> Path:
    path = checkout / ".env"
    keys = {"PREFECT_HOME": str(home / "prefect"), **QUIET, **addresses}
    lines = [f"{key}='{value}'" for key, value in keys.items() if key.startswith("PREFECT_")]
    text = "\n".join([*_foreign_lines(path), BEGIN, *lines, END]) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_private(path, text)
    path.chmod(0o600)
    _keep_out_of_git(path)
    return path


def _foreign_lines(path: Path) -> list[str]:
    old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if BEGIN in old and END in old:
        old = old[: old.index(BEGIN)] + old[old.index(END) + 1 :]
    return old


def _keep_out_of_git(path: Path) -> None:
    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], cwd=path.parent, capture_output=True, text=True, check=False)

    try:
        if git("check-ignore", "--quiet", path.name).returncode != 1:  # 0: ignored, 128: no repository
            return
        exclude = path.parent / git("rev-parse", "--git-path", "info/exclude").stdout.strip()
    except FileNotFoundError:  # no git on this machine
        return
    exclude.parent.mkdir(parents=True, exist_ok=True)
    with exclude.open("a", encoding="utf-8") as file:
        file.write(f"/{path.name}\n")
