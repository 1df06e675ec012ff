"""Who may speak to whom, where the cluster's network enforces it: nothing comes in but what is named here.

Forwarded ports of `mlops platform connect` arrive on the pod's own loopback, which no policy concerns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infra.kubernetes.gang.pod import GANG
from infra.kubernetes.manifests import (
    COMPONENT,
    MLFLOW,
    MLFLOW_PORT,
    POSTGRES,
    POSTGRES_PORT,
    PREFECT,
    PREFECT_PORT,
    labels,
    manifest,
)
from infra.kubernetes.platform.wanted import Wanted


def manifests(wanted: Wanted) -> list[dict[str, Any]]:
    """Return the policies."""
    anybody: list[dict[str, Any]] = [{"podSelector": {}}]
    servers = [
        {"podSelector": {"matchExpressions": [{"key": COMPONENT, "operator": "In", "values": [PREFECT, MLFLOW]}]}}
    ]
    # The workers of a distributed training speak to each other on any port.
    gang = {"matchExpressions": [{"key": GANG, "operator": "Exists"}]}
    closed = {"podSelector": {}, "policyTypes": ["Ingress"]}
    own = {"podSelector": gang, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": gang}]}]}
    return [
        _policy(wanted, "mlops-closed", "network", closed),
        _policy(wanted, "mlops-gangs", "network", own),
        _policy(wanted, PREFECT, PREFECT, _port(PREFECT, PREFECT_PORT, anybody)),
        _policy(wanted, MLFLOW, MLFLOW, _port(MLFLOW, MLFLOW_PORT, anybody)),
        _policy(
            wanted,
            POSTGRES,
            POSTGRES,
            # A database calls nobody: no rule lets anything out. (An empty list would be written anew by each apply.)
            _port(POSTGRES, POSTGRES_PORT, servers) | {"policyTypes": ["Ingress", "Egress"]},
        ),
    ]


def _port(component: str, port: int, callers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "podSelector": {"matchLabels": labels(component)},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": list(callers), "ports": [{"protocol": "TCP", "port": port}]}],
    }


def _policy(wanted: Wanted, name: str, component: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return manifest(
        "networking.k8s.io/v1", "NetworkPolicy", name, component, namespace=wanted.namespace, spec=dict(spec)
    )
