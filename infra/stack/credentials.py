"""The passwords of both servers: made once, kept in one file that only the user can read, passed on as environment."""

from __future__ import annotations

import json
import os
import secrets
import string
from dataclasses import asdict, dataclass, field
from pathlib import Path

from configs.problems import Problem, UserError

USER = "admin"


@dataclass(frozen=True)
class Credentials:
    """Passwords of user ``admin``, and the key that signs MLflow's sessions. Not shown by ``repr``."""

    prefect_password: str = field(repr=False)
    mlflow_password: str = field(repr=False)
    mlflow_secret_key: str = field(repr=False)

    @property
    def prefect_auth_string(self) -> str:
        return f"{USER}:{self.prefect_password}"


def credentials_file(home: Path) -> Path:
    return home / "secrets" / "servers.json"


def load_credentials(home: Path) -> Credentials:
    """The credentials of ``home``, made at the first call.

    Raises:
        UserError: the file is there but cannot be used.
    """
    path = credentials_file(home)
    if not path.exists():
        made = Credentials(_password(), _password(), secrets.token_hex(32))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        write_private(path, json.dumps({"user": USER, **asdict(made)}, indent=2) + "\n")
        return made
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        del values["user"]
        return Credentials(**values)
    except (OSError, ValueError, TypeError, KeyError):
        remedy = "restore the file; MLflow keeps the password it was first started with in its own database"
        raise UserError(Problem(str(path), "does not hold the servers' credentials", remedy)) from None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first byte on, whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def _password() -> str:
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(32))
