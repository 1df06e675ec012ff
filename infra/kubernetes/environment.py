"""The environment of what runs on the cluster: where the servers are, and how to log in there."""

from __future__ import annotations

from typing import Any

from infra.kubernetes.manifests import (
    CREDENTIALS,
    ENVIRONMENT,
    IMAGE_HOME,
    MLFLOW,
    MLFLOW_PORT,
    PREFECT,
    PREFECT_PORT,
    SHARE,
    WORKER,
    manifest,
    secret_value,
)
from infra.kubernetes.platform.share import PASSWORD, as_seen_by_pods
from infra.kubernetes.platform.wanted import Wanted
from infra.stack.environment import HEARTBEAT_S, QUIET


def server_variables(namespace: str) -> dict[str, str]:
    """Return the variables of a client of both servers in a pod; none of them is secret."""
    return {
        **QUIET,
        "MLFLOW_TRACKING_URI": f"http://{MLFLOW}.{namespace}:{MLFLOW_PORT}",
        "MLOPS_HOME": IMAGE_HOME,
        "PREFECT_API_URL": f"http://{PREFECT}.{namespace}:{PREFECT_PORT}/api",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
    }


def environment_map(wanted: Wanted) -> dict[str, Any]:
    """Return the ConfigMap that pods take as their environment: the servers, and the share as pods see it."""
    data = server_variables(wanted.namespace)
    share = as_seen_by_pods(wanted)
    if share is not None:
        data["MLOPS_SHARE"] = share.model_dump_json(exclude_none=True)
    return manifest("v1", "ConfigMap", ENVIRONMENT, WORKER, namespace=wanted.namespace, data=data)


def login_variables() -> list[dict[str, Any]]:
    """Return the variables of a container that log it in to both servers and to the share, taken from Secrets."""
    return [
        secret_value("PREFECT_API_AUTH_STRING", CREDENTIALS, "prefect-auth"),
        secret_value("MLFLOW_TRACKING_USERNAME", CREDENTIALS, "mlflow-user"),
        secret_value("MLFLOW_TRACKING_PASSWORD", CREDENTIALS, "mlflow-password"),
        # Only a share without a mount needs it.
        secret_value(PASSWORD, SHARE, "password", optional=True),
    ]
