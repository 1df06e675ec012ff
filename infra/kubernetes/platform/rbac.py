"""Who may do what: the worker creates Jobs and watches them, a run may also launch a gang. Nobody else asks the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infra.kubernetes.manifests import RUN, RUN_ACCOUNT, WORKER, WORKER_ACCOUNT, manifest, shared_name
from infra.kubernetes.platform.wanted import Wanted

_LOOK = ("get", "list", "watch")
_RULES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("batch", "jobs", ("create", *_LOOK, "delete")),
    ("", "pods", _LOOK),
    ("", "pods/log", ("get",)),
    # What a diagnosis reads: why a pod does not start, and what the namespace allows.
    ("", "events", _LOOK),
    ("", "persistentvolumeclaims", ("get", "list")),
    ("", "resourcequotas", ("get", "list")),
    ("kueue.x-k8s.io", "workloads", ("list",)),
    # Gangs whose run is gone are removed; of two supervisors one acts.
    ("", "services", ("get", "list", "delete")),
    ("coordination.k8s.io", "leases", ("get", "create", "update", "patch")),
)
_GANG_RULES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    # Applying is a patch; an elastic gang changes its Job.
    ("batch", "jobs", ("create", *_LOOK, "patch", "delete")),
    ("", "services", ("create", "get", "list", "patch", "delete")),
    ("", "pods", (*_LOOK, "delete")),
    ("", "pods/log", ("get",)),
    ("", "events", _LOOK),
    ("scheduling.volcano.sh", "podgroups", ("create", "get", "list", "patch", "delete")),
    ("kueue.x-k8s.io", "localqueues", ("get",)),
    ("kueue.x-k8s.io", "workloads", ("list",)),
)
_CLUSTER_RULES = (("", "nodes", _LOOK),)
NODES, NODE_EVENTS = "nodes", "node-events"
NODE_EVENTS_IN = "default"
"""Where Kubernetes keeps events about nodes."""


def manifests(wanted: Wanted) -> list[dict[str, Any]]:
    """Return both ServiceAccounts with their Roles, and the worker's right to look at nodes and their events."""
    nodes, events = shared_name(wanted.namespace, NODES), shared_name(wanted.namespace, NODE_EVENTS)
    return [
        *_account(wanted.namespace, WORKER_ACCOUNT, WORKER, _RULES),
        *_account(wanted.namespace, RUN_ACCOUNT, RUN, _GANG_RULES),
        manifest("rbac.authorization.k8s.io/v1", "ClusterRole", nodes, WORKER, rules=_rules(_CLUSTER_RULES)),
        manifest(
            "rbac.authorization.k8s.io/v1",
            "ClusterRoleBinding",
            nodes,
            WORKER,
            roleRef=_reference("ClusterRole", nodes),
            subjects=[_subject(wanted.namespace, WORKER_ACCOUNT)],
        ),
        manifest(
            "rbac.authorization.k8s.io/v1",
            "Role",
            events,
            WORKER,
            namespace=NODE_EVENTS_IN,
            rules=_rules((("", "events", ("list",)),)),
        ),
        manifest(
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            events,
            WORKER,
            namespace=NODE_EVENTS_IN,
            roleRef=_reference("Role", events),
            subjects=[_subject(wanted.namespace, WORKER_ACCOUNT)],
        ),
    ]


def _account(
    namespace: str, name: str, component: str, rules: Sequence[tuple[str, str, Sequence[str]]]
) -> list[dict[str, Any]]:
    return [
        manifest("v1", "ServiceAccount", name, component, namespace=namespace),
        manifest("rbac.authorization.k8s.io/v1", "Role", name, component, namespace=namespace, rules=_rules(rules)),
        manifest(
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            name,
            component,
            namespace=namespace,
            roleRef=_reference("Role", name),
            subjects=[_subject(namespace, name)],
        ),
    ]


def _rules(rules: Sequence[tuple[str, str, Sequence[str]]]) -> list[dict[str, Any]]:
    return [{"apiGroups": [group], "resources": [resource], "verbs": list(verbs)} for group, resource, verbs in rules]


def _reference(kind: str, name: str) -> dict[str, str]:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}


def _subject(namespace: str, account: str) -> dict[str, str]:
    return {"kind": "ServiceAccount", "name": account, "namespace": namespace}
