"""Postgres: one pod, a volume, and a database with a role of its own for each of Prefect and MLflow.

It expects of its image what the official one documents (https://hub.docker.com/_/postgres): ``PGDATA``,
``POSTGRES_PASSWORD_FILE``, scripts in ``/docker-entrypoint-initdb.d`` at the first start, running as any user that
owns the data, and a fast shutdown on the image's stop signal.
"""

from __future__ import annotations

from typing import Any

from infra.kubernetes.manifests import (
    CONTAINER,
    CREDENTIALS,
    POSTGRES,
    POSTGRES_PORT,
    amounts,
    container_security,
    labels,
    manifest,
    probes,
    scratch,
    secret_value,
    service,
    values,
)
from infra.kubernetes.platform.server import platform_pod
from infra.kubernetes.platform.volumes import claim, own_folder
from infra.kubernetes.platform.wanted import Wanted

USER = 999
"""User and group ``postgres`` of the official image."""
DATA = "/var/lib/postgresql/data"
SCRIPTS = "postgres-databases"
VOLUME = "mlops-postgres"

# Passwords go from the environment into variables of psql: not through a command line, not into the server's log.
DATABASES = r"""#!/bin/sh
set -e
psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --username postgres --dbname postgres <<'SQL'
\getenv prefect PREFECT_PASSWORD
\getenv mlflow MLFLOW_PASSWORD
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
CREATE ROLE prefect LOGIN PASSWORD :'prefect';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE DATABASE prefect OWNER prefect;
CREATE DATABASE mlflow OWNER mlflow;
REVOKE CONNECT ON DATABASE prefect, mlflow, postgres FROM PUBLIC;
SQL
"""


def manifests(wanted: Wanted) -> list[dict[str, Any]]:
    """Return the claim, the script of the databases, the Service and the StatefulSet."""
    namespace = wanted.namespace
    return [
        *claim(wanted, VOLUME, POSTGRES, wanted.cluster.state.postgres),
        manifest("v1", "ConfigMap", SCRIPTS, POSTGRES, namespace=namespace, data={"10-databases.sh": DATABASES}),
        service(namespace, POSTGRES, POSTGRES_PORT, headless=True),
        manifest(
            "apps/v1",
            "StatefulSet",
            POSTGRES,
            POSTGRES,
            namespace=namespace,
            spec={
                "replicas": 1,
                "serviceName": POSTGRES,
                "selector": {"matchLabels": labels(POSTGRES)},
                "template": {"metadata": {"labels": labels(POSTGRES)}, "spec": _pod(wanted)},
            },
        ),
    ]


def _pod(wanted: Wanted) -> dict[str, Any]:
    image = wanted.cluster.images.postgres
    mounted = {"name": "data", "mountPath": DATA}
    owner = own_folder(wanted, image, USER, mounted)
    is_ready = {"exec": {"command": ["pg_isready", "--quiet", "--host=127.0.0.1", "--username=postgres"]}}
    return {
        # A fast shutdown writes a checkpoint of what is in memory.
        **platform_pod(wanted, user=USER, grace_s=120),
        "automountServiceAccountToken": False,
        **({"initContainers": owner} if owner else {}),
        "containers": [
            {
                "name": POSTGRES,
                "image": image,
                **CONTAINER,
                "env": [
                    # A folder of its own: the volume's root may hold lost+found, and need not be private.
                    *values({"PGDATA": f"{DATA}/pgdata", "POSTGRES_PASSWORD_FILE": "/run/secrets/postgres/password"}),
                    secret_value("PREFECT_PASSWORD", CREDENTIALS, "prefect-database-password"),
                    secret_value("MLFLOW_PASSWORD", CREDENTIALS, "mlflow-database-password"),
                ],
                "ports": [{"name": POSTGRES, "containerPort": POSTGRES_PORT, "protocol": "TCP"}],
                # Recovery after a crash replays what was not yet in the tables.
                **probes(is_ready, start_s=600),
                "resources": amounts("200m", "256Mi", "2", "1Gi"),
                "securityContext": container_security(),
                "volumeMounts": [
                    mounted,
                    {"name": "socket", "mountPath": "/var/run/postgresql"},
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 the pod's own
                    {"name": "memory", "mountPath": "/dev/shm"},  # noqa: S108 the pod's own
                    {"name": "password", "mountPath": "/run/secrets/postgres", "readOnly": True},
                    {"name": "scripts", "mountPath": "/docker-entrypoint-initdb.d", "readOnly": True},
                ],
            }
        ],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": VOLUME}},
            scratch("socket", "16Mi"),
            scratch("tmp", "256Mi"),
            # Parallel queries share memory there; the runtime's default is 64 MiB.
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
            {
                "name": "password",
                "secret": {
                    "secretName": CREDENTIALS,
                    "items": [{"key": "postgres-password", "path": "password"}],
                    "defaultMode": 0o440,
                },
            },
            {"name": "scripts", "configMap": {"name": SCRIPTS, "defaultMode": 0o555}},
        ],
    }
