"""JSON over HTTP with the standard library: looking at the servers costs no import of theirs."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from typing import Any

from infra.stack.credentials import USER, load_credentials
from infra.stack.state import Stack

# Both servers are ours: a proxy for the world outside is not asked.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class UnreachableError(Exception):
    """The server did not answer, or refused; ``str()`` says how. Holds no secret."""


def prefect(stack: Stack, path: str, body: object = None, timeout: float = 5) -> Any:
    """Ask Prefect's API: GET without ``body``, else POST.

    Raises:
        UnreachableError: no answer in ``timeout`` seconds, or an error.
    """
    password = load_credentials(stack.home).prefect_password if stack.authenticated else None
    return _ask(f"{stack.prefect_api_url}{path}", body, password, timeout)


def mlflow(stack: Stack, path: str, body: object = None, timeout: float = 5) -> Any:
    """Ask MLflow's API (paths below ``/api/2.0/mlflow``): GET without ``body``, else POST.

    Raises:
        UnreachableError: no answer in ``timeout`` seconds, or an error.
    """
    password = load_credentials(stack.home).mlflow_password if stack.authenticated else None
    return _ask(f"{stack.mlflow_url}/api/2.0/mlflow{path}", body, password, timeout)


def answers(url: str, timeout: float = 2) -> bool:
    """Whether a GET of ``url`` succeeds, without credentials."""
    try:
        with _opener.open(url, timeout=timeout) as response:
            return bool(200 <= response.status < 300)
    except (OSError, ValueError):
        return False


def _ask(url: str, body: object, password: str | None, timeout: float) -> Any:
    headers = {"Content-Type": "application/json"}
    if password is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers)  # noqa: S310
    deadline = time.monotonic() + timeout
    while True:
        try:
            with _opener.open(request, timeout=timeout) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            # Prefect says so while another writer holds its sqlite database; its own clients ask again, too.
            if error.code != 503 or time.monotonic() > deadline:
                raise UnreachableError(f"{url} answered {error.code} {error.reason}") from None
            time.sleep(0.3)
        except (OSError, ValueError) as error:
            raise UnreachableError(f"{url} did not answer: {getattr(error, 'reason', None) or error}") from None
