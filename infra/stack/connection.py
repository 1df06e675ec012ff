"""The connection of a checkout to a platform on a cluster: which ports lead there, and how clients log in."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.stack.processes import is_running
from infra.stack.state import LOOPBACK, Part


@dataclass(frozen=True)
class Connection:
    """Forwarded ports on this machine's loopback.

    Attributes:
        checkout: whose ``.env`` names them. namespace: that of the platform.
        part: the process that forwards.
    """

    checkout: Path
    namespace: str
    prefect_port: int
    mlflow_port: int
    part: Part

    @property
    def prefect_url(self) -> str:
        return f"http://{LOOPBACK}:{self.prefect_port}"

    @property
    def mlflow_url(self) -> str:
        return f"http://{LOOPBACK}:{self.mlflow_port}"


def logins_file(home: Path, namespace: str) -> Path:
    """Where the logins of the platform in ``namespace`` are kept for this user's clients (0600)."""
    return home / "secrets" / f"cluster-{namespace}.json"


def load_connection(home: Path) -> Connection | None:
    """Return the connection of a state folder, None where there is none; whether it still lives is not looked at."""
    try:
        values = json.loads(_file(home).read_text(encoding="utf-8"))
        part = Part(**values.pop("part"))
        return Connection(checkout=Path(values.pop("checkout")), part=part, **values)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def save_connection(home: Path, connection: Connection | None) -> None:
    """Keep the connection, whole or not at all; None forgets it. Holds no secret."""
    if connection is None:
        _file(home).unlink(missing_ok=True)
        return
    home.mkdir(parents=True, exist_ok=True)
    draft = _file(home).with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps({**asdict(connection), "checkout": str(connection.checkout)}, indent=2) + "\n", "utf-8")
    draft.replace(_file(home))


def forget_ended(home: Path) -> None:
    """Forget a connection whose process has ended: its ports lead nowhere, or to somebody else."""
    connection = load_connection(home)
    if connection is not None and not is_running(connection.part):
        save_connection(home, None)


def connection_variables(home: Path, connection: Connection) -> dict[str, str]:
    """Return the variables of a client of both servers. Holds the passwords."""
    values = json.loads(logins_file(home, connection.namespace).read_text(encoding="utf-8"))
    return {
        "PREFECT_API_URL": f"{connection.prefect_url}/api",
        "MLFLOW_TRACKING_URI": connection.mlflow_url,
        "PREFECT_API_AUTH_STRING": values["prefect_auth"],
        "MLFLOW_TRACKING_USERNAME": values["mlflow_user"],
        "MLFLOW_TRACKING_PASSWORD": values["mlflow_password"],
    }


def _file(home: Path) -> Path:
    return home / "connection.json"
