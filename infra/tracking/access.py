"""Which MLflow server: the one named in the environment, else the embedded one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.problems import Problem, UserError
from infra.stack.identity import for_people
from infra.tracking.entities import DeniedError, RefusedError, UnreachableError
from infra.tracking.server import MlflowServer


def mlflow_server(home: Path, timeout_s: float = 5.0) -> MlflowServer:
    """The server of ``MLFLOW_TRACKING_URI`` (with ``MLFLOW_TRACKING_USERNAME``, ``..._PASSWORD``), else the stack's.

    Raises:
        UserError: neither names one, or it is no http(s) address.
    """
    environment = dict(os.environ)
    if not environment.get("MLFLOW_TRACKING_URI"):
        from infra.stack.environment import client_environment

        environment |= client_environment(home)
    uri = environment.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise UserError(Problem("MLflow", "no server is named", "start the embedded one: mlops up"))
    if not uri.startswith(("http://", "https://")):
        raise UserError(Problem("MLFLOW_TRACKING_URI", f"is {uri}", "name a server: http://host:port"))
    user, password = environment.get("MLFLOW_TRACKING_USERNAME"), environment.get("MLFLOW_TRACKING_PASSWORD")
    return MlflowServer(uri, user, password, timeout_s, for_people(uri))


@contextmanager
def tracker_errors_for_people(server: MlflowServer) -> Iterator[None]:
    """Turns what the server fails with into a ``UserError`` with a remedy."""
    try:
        yield
    except DeniedError as error:
        remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        raise UserError(Problem(f"MLflow at {server.uri}", str(error), remedy)) from None
    except UnreachableError as error:
        raise UserError(Problem(f"MLflow at {server.uri}", str(error), "start it: mlops up")) from None
    except RefusedError as error:
        raise UserError(Problem(f"MLflow at {server.uri}", str(error), "look at the server's log")) from None
