"""What the pods of Prefect and of MLflow have in common: our image, a migrated database, writing to /tmp only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infra.kubernetes.manifests import (
    CONTAINER,
    CREDENTIALS,
    IMAGE_USER,
    POSTGRES,
    POSTGRES_PORT,
    amounts,
    container_security,
    labels,
    manifest,
    pod_security,
    pull_secrets,
    scratch,
    secret_value,
    values,
)
from infra.kubernetes.platform.wanted import Wanted
from infra.stack.environment import QUIET

COMMIT = "mlops/commit"


def database(driver: str, name: str, variable: str) -> list[dict[str, Any]]:
    """Return the variables that make up the address of database ``name`` in ``variable``.

    The password is put in by Kubernetes, from the Secret; it consists of letters and digits.
    """
    return [
        secret_value("DATABASE_PASSWORD", CREDENTIALS, f"{name}-database-password"),
        *values({variable: f"{driver}://{name}:$(DATABASE_PASSWORD)@{POSTGRES}:{POSTGRES_PORT}/{name}"}),
    ]


def deployment(
    wanted: Wanted,
    name: str,
    *,
    command: Sequence[str],
    port: int,
    environment: Sequence[Mapping[str, Any]],
    probes: Mapping[str, Any],
    cpu: str,
    memory: tuple[str, str],
    volumes: Sequence[Mapping[str, Any]] = (),
    mounts: Sequence[Mapping[str, Any]] = (),
    init: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the Deployment of a server: one pod at a time, which begins by bringing its database up to date.

    Args:
        cpu: its share while trainings want all there is. memory: what is asked for, and the limit.
        init: containers that have to end before.
    """
    shared = {
        "image": wanted.image,
        **CONTAINER,
        "env": [*values({**QUIET, "HOME": "/tmp", "PYTHONUNBUFFERED": "1"}), *environment],  # noqa: S108 the pod's own
        "resources": amounts(cpu, memory[0], "2", memory[1]),
        "securityContext": container_security(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *mounts],  # noqa: S108 the pod's own
    }
    pod = {
        **platform_pod(wanted, user=IMAGE_USER, grace_s=30),
        "automountServiceAccountToken": False,
        "initContainers": [
            *init,
            {
                "name": "migrate",
                "command": ["python", "-m", "infra.kubernetes.platform.migrate", name],
                **shared,
            },
        ],
        "containers": [
            {
                "name": name,
                "command": list(command),
                **shared,
                "ports": [{"name": name, "containerPort": port, "protocol": "TCP"}],
                **probes,
            }
        ],
        "volumes": [scratch("tmp", "1Gi"), *volumes],
    }
    return one_pod(wanted, name, pod)


def platform_pod(wanted: Wanted, *, user: int, grace_s: int) -> dict[str, Any]:
    """Return what the pods of all components have in common: they go before runs, and run as ``user``.

    Args:
        grace_s: seconds between SIGTERM and SIGKILL.
    """
    return {
        "enableServiceLinks": False,
        "priorityClassName": "mlops-platform",
        "securityContext": pod_security(user),
        "terminationGracePeriodSeconds": grace_s,
        **pull_secrets(wanted.pull_secrets),
    }


def one_pod(wanted: Wanted, name: str, pod: Mapping[str, Any], **annotations: str) -> dict[str, Any]:
    """Return a Deployment of a single pod that is stopped before its successor starts."""
    if wanted.commit is not None:
        annotations[COMMIT] = wanted.commit
    metadata: dict[str, Any] = {"labels": labels(name)}
    if annotations:
        metadata["annotations"] = annotations
    return manifest(
        "apps/v1",
        "Deployment",
        name,
        name,
        namespace=wanted.namespace,
        spec={
            "replicas": 1,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": 600,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels(name)},
            "template": {"metadata": metadata, "spec": pod},
        },
    )
