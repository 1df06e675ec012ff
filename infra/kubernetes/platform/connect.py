"""``connect``: ports of this machine that lead to the platform, and a checkout whose commands use them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from configs.problems import Problem, UserError
from configs.site import SITE_FILE, Site
from infra.kubernetes.client import api_errors_for_people
from infra.kubernetes.client import connect as connect_api
from infra.kubernetes.manifests import MLFLOW, MLFLOW_PORT, PREFECT, PREFECT_PORT
from infra.kubernetes.platform.choice import cluster_of
from infra.kubernetes.platform.credentials import keep_copy, read_logins
from infra.stack import ports, processes, rest
from infra.stack.connection import Connection, load_connection, save_connection
from infra.stack.environment import import_path, put_dotenv_back, write_dotenv_of
from infra.stack.processes import MARK
from infra.stack.state import LOOPBACK, change_lock, stack_id

LIMIT_S = 90.0


@api_errors_for_people()
def connect(site: Site, checkout: Path, home: Path) -> Connection:
    """Forward Prefect and MLflow in the background and write ``.env``; a connection that lives is kept.

    Raises:
        UserError: the cluster cannot be used, holds no platform, or its servers do not answer.
    """
    cluster = cluster_of(site)
    client = connect_api(cluster)
    logins = read_logins(client)
    if logins is None:
        where = f"{SITE_FILE} cluster.namespace"
        raise UserError(Problem(where, f"{cluster.namespace} holds no platform", "mlops platform apply"))
    with change_lock(home, lambda: None):
        old = load_connection(home)
        if old is not None and old.namespace == cluster.namespace and old.checkout == checkout:
            keep_copy(home, cluster.namespace, logins)
            if processes.is_running(old.part) and _answers(old):
                write_dotenv_of(home, old)
                return old
        if old is not None:
            _stop(old)
        keep_copy(home, cluster.namespace, logins)
        taken = [old.prefect_port, old.mlflow_port] if old else []
        # The ports that pages in the browser know, where they are still free.
        prefect = ports.choose(LOOPBACK, None, taken[0] if taken else PREFECT_PORT, frozenset(), "")
        mlflow = ports.choose(LOOPBACK, None, taken[1] if taken else MLFLOW_PORT, frozenset({prefect}), "")
        arguments = ["--namespace", cluster.namespace]
        if cluster.kubeconfig is not None:
            arguments += ["--kubeconfig", str(cluster.kubeconfig.expanduser().absolute())]
        if cluster.context is not None:
            arguments += ["--context", cluster.context]
        arguments += [f"{PREFECT}={PREFECT_PORT}:{prefect}", f"{MLFLOW}={MLFLOW_PORT}:{mlflow}"]
        log = home / "logs" / "connection.log"
        part = processes.spawn("infra.kubernetes.forward", arguments, _environment(home), log, checkout)
        connection = Connection(checkout, cluster.namespace, prefect, mlflow, part)
        save_connection(home, connection)
        try:
            _wait(connection, log)
        except BaseException:
            _stop(connection)
            save_connection(home, None)
            raise
        write_dotenv_of(home, connection)
        return connection


def disconnect(home: Path) -> bool:
    """End the connection and put ``.env`` back; returns whether there was one."""
    with change_lock(home, lambda: None):
        connection = load_connection(home)
        if connection is None:
            return False
        _stop(connection)
        save_connection(home, None)
        put_dotenv_back(home, connection.checkout)
        return True


def _environment(home: Path) -> dict[str, str]:
    # With the stack's mark, `mlops down` finds it although its parent is gone.
    return {**os.environ, MARK: stack_id(home), "PYTHONPATH": import_path(), "PYTHONUNBUFFERED": "1"}


def _wait(connection: Connection, log: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    forwarded = (connection.prefect_port, connection.mlflow_port)
    # Whoever was faster at a port may answer as well.
    while not (all(ports.listens(connection.part.pid, port) for port in forwarded) and _answers(connection)):
        if processes.exit_status(connection.part) is not None or time.monotonic() > deadline:
            said = processes.last_lines(log, 3)
            what = "\n".join(said) or f"its servers do not answer within {LIMIT_S:.0f} s"
            raise UserError(Problem(f"connection to {connection.namespace}", what, "mlops platform status"))
        time.sleep(0.3)


def _answers(connection: Connection) -> bool:
    addresses = (f"{connection.prefect_url}/api/health", f"{connection.mlflow_url}/health")
    return all(rest.answers(address, timeout=10) for address in addresses)


def _stop(connection: Connection) -> None:
    process = processes.find(connection.part)
    if process is not None:
        processes.stop([process], 10)
