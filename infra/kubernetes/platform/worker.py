"""The Prefect worker, which makes a Job of each run of the work pool and watches it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from infra.kubernetes.environment import environment_map, login_variables
from infra.kubernetes.manifests import (
    CONTAINER,
    CREDENTIALS,
    ENVIRONMENT,
    IMAGE_USER,
    WORKER,
    WORKER_ACCOUNT,
    amounts,
    container_security,
    scratch,
    values,
)
from infra.kubernetes.platform.server import one_pod, platform_pod
from infra.kubernetes.platform.wanted import Wanted

READY = "/tmp/ready"  # noqa: S108 the pod's own
_FRESH = f"test $(( $(date +%s) - $(stat -c %Y {READY}) )) -lt 60"


def manifests(wanted: Wanted) -> list[dict[str, Any]]:
    """Return the ConfigMap of everybody's environment and the Deployment."""
    pod = {
        **platform_pod(wanted, user=IMAGE_USER, grace_s=60),
        "serviceAccountName": WORKER_ACCOUNT,
        "containers": [
            {
                "name": WORKER,
                "image": wanted.image,
                **CONTAINER,
                "command": ["python", "-m", "infra.kubernetes.worker", "--ready", READY],
                "args": ["--retries", str(wanted.cluster.retries)],
                "envFrom": [{"configMapRef": {"name": ENVIRONMENT}}],
                "env": [*values(_variables(wanted.namespace)), *login_variables()],
                # The file is touched whenever the worker looks for runs: not while the Prefect server is away.
                "startupProbe": _probe(f"test -e {READY}", failures=90),
                "readinessProbe": _probe(_FRESH, failures=3),
                "resources": amounts("100m", "384Mi", "1", "1Gi"),
                "securityContext": container_security(),
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 the pod's own
            }
        ],
        "volumes": [scratch("tmp", "1Gi")],
    }
    shared = environment_map(wanted)
    # A process reads its environment once: a pod of another ConfigMap is another pod.
    digest = hashlib.sha256(json.dumps(shared["data"], sort_keys=True).encode()).hexdigest()[:16]
    return [shared, one_pod(wanted, WORKER, pod, **{"mlops/environment": digest})]


def _probe(test: str, *, failures: int) -> dict[str, Any]:
    action = {"exec": {"command": ["sh", "-c", test]}}
    return {**action, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": failures}


def _variables(namespace: str) -> dict[str, str]:
    return {
        "HOME": "/tmp",  # noqa: S108 the pod's own
        "MLOPS_HOME": "/tmp/mlops",  # noqa: S108 the pod's own
        "PREFECT_HOME": "/tmp/prefect",  # noqa: S108 the pod's own
        # Runs read the password from the Secret; it never stands in their Jobs.
        "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_NAME": CREDENTIALS,
        "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_KEY": "prefect-auth",
        # Else it watches all namespaces, and asks for the uid of kube-system: neither is its business.
        "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES": json.dumps([namespace]),
        "PREFECT_INTEGRATIONS_KUBERNETES_CLUSTER_UID": namespace,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PYTHONUNBUFFERED": "1",
    }
