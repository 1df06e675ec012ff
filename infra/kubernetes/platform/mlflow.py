"""The MLflow server: runs, models and users in Postgres, artifacts through the server onto a volume."""

from __future__ import annotations

from typing import Any

from infra.kubernetes.manifests import (
    CREDENTIALS,
    IMAGE_USER,
    MLFLOW,
    MLFLOW_PORT,
    http_get,
    probes,
    secret_value,
    service,
    values,
)
from infra.kubernetes.platform.server import database, deployment
from infra.kubernetes.platform.volumes import claim, own_folder
from infra.kubernetes.platform.wanted import Wanted
from infra.stack.environment import MLFLOW_SERVER

VOLUME = "mlops-artifacts"
DATA = "/var/lib/mlflow"


def manifests(wanted: Wanted) -> list[dict[str, Any]]:
    """Return the claim of the artifacts, the Service and the Deployment."""
    namespace = wanted.namespace
    mounted = {"name": "artifacts", "mountPath": DATA}
    names = [MLFLOW, *(f"{MLFLOW}.{namespace}{suffix}" for suffix in ("", ".svc", ".svc.cluster.local"))]
    names += ["localhost", "127.0.0.1"]
    return [
        *claim(wanted, VOLUME, MLFLOW, wanted.cluster.state.artifacts),
        service(namespace, MLFLOW, MLFLOW_PORT),
        deployment(
            wanted,
            MLFLOW,
            command=[
                *("python", "-m", "infra.stack.mlflow_server", DATA),
                *("--host", "0.0.0.0", "--port", str(MLFLOW_PORT), "--auth"),  # noqa: S104 of the pod
            ],
            port=MLFLOW_PORT,
            environment=[
                *values(
                    {
                        **MLFLOW_SERVER,
                        "MLFLOW_AUTH_CONFIG_PATH": "/tmp/auth.ini",  # noqa: S108 the pod's own
                        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join([*names, *(f"{name}:*" for name in names)]),
                    }
                ),
                *database("postgresql+psycopg2", "mlflow", "MLOPS_MLFLOW_DATABASE"),
                secret_value("MLFLOW_AUTH_ADMIN_USERNAME", CREDENTIALS, "mlflow-user"),
                secret_value("MLFLOW_AUTH_ADMIN_PASSWORD", CREDENTIALS, "mlflow-password"),
                secret_value("MLFLOW_FLASK_SERVER_SECRET_KEY", CREDENTIALS, "mlflow-secret-key"),
            ],
            probes=probes(http_get("/health", MLFLOW_PORT), start_s=600),
            cpu="200m",
            memory=("512Mi", "2Gi"),
            volumes=[{"name": "artifacts", "persistentVolumeClaim": {"claimName": VOLUME}}],
            mounts=[mounted],
            init=own_folder(wanted, wanted.image, IMAGE_USER, mounted),
        ),
    ]
