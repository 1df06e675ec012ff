"""The Prefect server: API, UI, events and automations in one pod; all state is in Postgres."""

from __future__ import annotations

from typing import Any

from infra.kubernetes.manifests import (
    CREDENTIALS,
    PREFECT,
    PREFECT_PORT,
    http_get,
    probes,
    secret_value,
    service,
    values,
)
from infra.kubernetes.platform.server import database, deployment
from infra.kubernetes.platform.wanted import Wanted
from infra.stack.environment import PREFECT_SERVER


def manifests(wanted: Wanted) -> list[dict[str, Any]]:
    """Return the Service and the Deployment."""
    return [
        service(wanted.namespace, PREFECT, PREFECT_PORT),
        deployment(
            wanted,
            PREFECT,
            command=["python", "-m", "infra.stack.prefect_server"],
            port=PREFECT_PORT,
            environment=[
                *values(
                    {
                        **PREFECT_SERVER,
                        "PREFECT_HOME": "/tmp/prefect",  # noqa: S108 the pod's own
                        "PREFECT_SERVER_API_HOST": "0.0.0.0",  # noqa: S104 of the pod, which policies guard
                        "PREFECT_SERVER_API_PORT": str(PREFECT_PORT),
                        # No page of another origin may use the API; ours comes from where the API is.
                        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{PREFECT}.{wanted.namespace}:{PREFECT_PORT}",
                        "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
                        "PREFECT_SERVER_UI_STATIC_DIRECTORY": "/tmp/ui",  # noqa: S108 the pod's own
                    }
                ),
                *database("postgresql+asyncpg", "prefect", "PREFECT_SERVER_DATABASE_CONNECTION_URL"),
                secret_value("PREFECT_SERVER_API_AUTH_STRING", CREDENTIALS, "prefect-auth"),
            ],
            probes=probes(http_get("/api/health", PREFECT_PORT), http_get("/api/ready", PREFECT_PORT), start_s=600),
            cpu="300m",
            memory=("384Mi", "1Gi"),
        ),
    ]
