"""JSON over HTTP with the standard library: looking at the servers costs no import of theirs."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from infra.stack.credentials import USER, load_credentials
from infra.stack.identity import ANOTHERS
from infra.stack.state import Stack, load_stack

# Both servers are ours: a proxy for the world outside is not asked.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
WELL = (b"true", b"OK")
"""How Prefect and MLflow say so. Any other page is no such word: a server of web pages may have one at every path."""
WELL_LENGTH = 16


class UnreachableError(Exception):
    """The server did not answer, or refused; ``str()`` says how. Holds no secret."""


class RefusedError(UnreachableError):
    """The server answered that it will not. ``status``: HTTP's; ``said``: its reason, may be empty."""

    def __init__(self, url: str, status: int, reason: str, said: str) -> None:
        self.status, self.said = status, said
        super().__init__(f"{url} answered {status} {reason}" + (f": {said}" if said else ""))


def prefect_client(path: str, body: object = None, timeout: float = 30) -> Any:
    """Ask the API of the Prefect server that this process's environment names: GET without ``body``, else POST.

    Raises:
        UnreachableError: no server is named, or no answer in ``timeout`` seconds.
        RefusedError: an error is the answer.
    """
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        raise UnreachableError("Prefect does not run")
    return _ask(f"{url}{path}", body, os.environ.get("PREFECT_API_AUTH_STRING"), timeout)


def prefect(stack: Stack, path: str, body: object = None, timeout: float = 5) -> Any:
    """Ask Prefect's API: GET without ``body``, else POST.

    Raises:
        UnreachableError: no answer in ``timeout`` seconds, or an error.
    """
    login = load_credentials(stack.home).prefect_auth_string if stack.authenticated else None
    return _ask(f"{stack.prefect_api_url}{path}", body, login, timeout)


def prefect_secret(home: Path, name: str) -> str:
    """Return the value of the Secret block ``name`` from the server of ``PREFECT_API_URL``, else from the stack.

    Raises:
        UnreachableError: no server answers, or it has no such block.
    """
    path = f"/block_types/slug/secret/block_documents/name/{name}?include_secrets=true"
    url = os.environ.get("PREFECT_API_URL")
    if url:
        block = _ask(f"{url}{path}", None, os.environ.get("PREFECT_API_AUTH_STRING"), 5)
    else:
        stack = load_stack(home)
        if stack is None:
            raise UnreachableError("Prefect does not run")
        block = prefect(stack, path)
    return str(block["data"]["value"])


def mlflow(stack: Stack, path: str, body: object = None, timeout: float = 5) -> Any:
    """Ask MLflow's API (paths below ``/api/2.0/mlflow``): GET without ``body``, else POST.

    Raises:
        UnreachableError: no answer in ``timeout`` seconds, or an error.
    """
    login = f"{USER}:{load_credentials(stack.home).mlflow_password}" if stack.authenticated else None
    return _ask(f"{stack.mlflow_api_url}/api/2.0/mlflow{path}", body, login, timeout)


def answers(url: str, timeout: float = 2) -> bool:
    """Whether ``url``, a server's page of its health, says that it is well; asked without credentials."""
    try:
        with _opener.open(url, timeout=timeout) as response:
            return response.read(WELL_LENGTH).strip() in WELL
    except (OSError, ValueError):
        return False


def _ask(url: str, body: object, login: str | None, timeout: float) -> Any:
    headers = {"Content-Type": "application/json"}
    if login is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers)  # noqa: S310
    deadline = time.monotonic() + timeout
    while True:
        try:
            with _opener.open(request, timeout=timeout) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            said = _reason(error)
            # Prefect says so while another writer holds its sqlite database; its own clients ask again, too.
            if error.code != 503 or said == ANOTHERS or time.monotonic() > deadline:
                raise RefusedError(url, error.code, error.reason, said) from None
            time.sleep(0.3)
        except (OSError, ValueError) as error:
            raise UnreachableError(f"{url} did not answer: {getattr(error, 'reason', None) or error}") from None


def _reason(error: urllib.error.HTTPError) -> str:
    """What the body of an answer gives as its reason."""
    try:
        return str(json.load(error)["detail"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
