"""All manifests of the platform, in the order in which they are applied."""

from __future__ import annotations

from typing import Any

from infra.kubernetes.manifests import CREDENTIALS, REGISTRY, SHARE, manifest
from infra.kubernetes.platform import limits, mlflow, network, postgres, prefect, rbac, share, worker
from infra.kubernetes.platform.credentials import KEYS
from infra.kubernetes.platform.wanted import Wanted

SECRETS = {CREDENTIALS: KEYS, SHARE: share.SECRET_KEYS, REGISTRY: (".dockerconfigjson",)}
"""The Secrets that manifests may name, with their keys; they are made apart, so that no manifest holds a secret."""

POD_SECURITY = "pod-security.kubernetes.io/enforce"
"""Label of a namespace: which pods may run there (https://kubernetes.io/docs/concepts/security/pod-security-standards/)."""


def namespace(wanted: Wanted) -> dict[str, Any]:
    """Return the namespace, which comes before all else."""
    found = manifest("v1", "Namespace", wanted.namespace, "namespace")
    # The cache, and a mounted share, are folders of the node, which clusters with stricter defaults take nowhere else.
    found["metadata"]["labels"][POD_SECURITY] = "privileged"
    return found


def platform_manifests(wanted: Wanted) -> list[dict[str, Any]]:
    """Return everything in the namespace and what it needs outside, Secrets and the namespace itself apart."""
    return [
        *limits.priorities(),
        *limits.quotas(wanted),
        *limits.defaults(wanted),
        *network.manifests(wanted),
        *rbac.manifests(wanted),
        *share.manifests(wanted),
        *postgres.manifests(wanted),
        *prefect.manifests(wanted),
        *mlflow.manifests(wanted),
        *worker.manifests(wanted),
    ]
