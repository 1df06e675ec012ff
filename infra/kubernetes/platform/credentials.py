"""The platform's passwords: made once, kept in a Secret of the cluster, and in a private file for this user's clients.

They are no part of the manifests: a second apply reads them and changes nothing, since Postgres and MLflow keep the
passwords that they were first started with in their own data.
"""

from __future__ import annotations

import base64
import json
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from infra.kubernetes.client import status_code
from infra.kubernetes.manifests import CREDENTIALS, labels
from infra.kubernetes.objects import find
from infra.stack.connection import logins_file
from infra.stack.credentials import USER, write_private

if TYPE_CHECKING:
    from lightkube import Client

KEYS = (
    "prefect-auth",
    "mlflow-user",
    "mlflow-password",
    "mlflow-secret-key",
    "postgres-password",
    "prefect-database-password",
    "mlflow-database-password",
)


@dataclass(frozen=True)
class Logins:
    """How a client logs in to the platform's servers. Not shown by ``repr``."""

    prefect_auth: str = field(repr=False)
    mlflow_user: str = field(repr=False)
    mlflow_password: str = field(repr=False)


def ensure_credentials(client: Client) -> bool:
    """Make the Secret, or the keys that it lacks; returns whether there was something to make.

    Raises:
        httpx2.HTTPError: the API server refuses, or is away.
    """
    from lightkube.core.exceptions import ApiError
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.core_v1 import Secret

    known = _read(client)
    if known is None:
        made = Secret(
            metadata=ObjectMeta(name=CREDENTIALS, labels=labels("credentials")), stringData=_fresh(), type="Opaque"
        )
        try:
            client.create(made)
        except ApiError as error:
            if status_code(error) != 409:  # else somebody was faster, and those passwords are as good
                raise
            return False
        return True
    missing = {key: value for key, value in _fresh().items() if key not in known}
    if missing:
        client.patch(Secret, CREDENTIALS, {"stringData": missing})
    return bool(missing)


def read_logins(client: Client) -> Logins | None:
    """Return the logins that the cluster has, None where no platform was ever applied."""
    known = _read(client)
    if known is None:
        return None
    return Logins(known["prefect-auth"], known["mlflow-user"], known["mlflow-password"])


def keep_copy(home: Path, namespace: str, logins: Logins) -> Path:
    """Write the logins where this user's clients find them: ``.mlops/secrets``, 0600."""
    path = logins_file(home, namespace)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    values = {
        "prefect_auth": logins.prefect_auth,
        "mlflow_user": logins.mlflow_user,
        "mlflow_password": logins.mlflow_password,
    }
    text = json.dumps(values, indent=2) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_private(path, text)
    return path


def _read(client: Client) -> Mapping[str, str] | None:
    from lightkube.resources.core_v1 import Secret

    found = find(client, Secret, CREDENTIALS)
    if found is None:
        return None
    return {key: base64.b64decode(value).decode() for key, value in (found.data or {}).items()}


def _fresh() -> dict[str, str]:
    made = {key: _password() for key in KEYS}
    return made | {"prefect-auth": f"{USER}:{made['prefect-auth']}", "mlflow-user": USER}


def _password() -> str:
    # Letters and digits alone: they stand in addresses of databases.
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(32))
