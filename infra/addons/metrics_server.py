"""metrics-server: how much processor and memory nodes and pods use now, for ``kubectl top`` and the dashboard.

Nobody on the way is trusted unseen: it demands of each kubelet a certificate of the cluster's CA, and the API server
demands of it one of the site's. Source: https://github.com/kubernetes-sigs/metrics-server#requirements.
"""

from __future__ import annotations

from typing import Any

from infra.addons.images import METRICS_SERVER
from infra.addons.parts import encoded, on_control_plane, tls_secret, tls_volume
from infra.kubernetes.manifests import CONTAINER, container_security, manifest, pod_security
from infra.site.authority import ServerCertificate

NAME = "metrics-server"
NAMESPACE = "kube-system"
HOST = f"{NAME}.{NAMESPACE}.svc"
"""The name that the API server calls it by, and so that of its certificate."""
_PORT = 10250
_USER = 1000
_CERTIFICATE = f"{NAME}-tls"
_TLS = "/etc/metrics-server"
_RBAC = "rbac.authorization.k8s.io"
_READ = ["get", "list", "watch"]


def metrics_server_manifests(
    certificate: ServerCertificate, ca_pem: str, image: str = METRICS_SERVER
) -> list[dict[str, Any]]:
    """Return all objects; they hold the certificate's key, so they are secret.

    Args:
        certificate: for :data:`HOST`, by the CA ``ca_pem``.
    """
    return [
        manifest("v1", "ServiceAccount", NAME, NAME, namespace=NAMESPACE),
        *_rights(),
        tls_secret(_CERTIFICATE, NAME, NAMESPACE, certificate),
        manifest(
            "v1",
            "Service",
            NAME,
            NAME,
            namespace=NAMESPACE,
            spec={
                "selector": {"k8s-app": NAME},
                "ports": [{"name": "https", "port": 443, "targetPort": "https", "protocol": "TCP"}],
            },
        ),
        _deployment(image),
        manifest(
            "apiregistration.k8s.io/v1",
            "APIService",
            "v1beta1.metrics.k8s.io",
            NAME,
            spec={
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "service": {"name": NAME, "namespace": NAMESPACE, "port": 443},
                "caBundle": encoded(ca_pem),
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
            },
        ),
    ]


def _rights() -> list[dict[str, Any]]:
    readers = manifest(
        f"{_RBAC}/v1",
        "ClusterRole",
        "system:aggregated-metrics-reader",
        NAME,
        rules=[{"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": _READ}],
    )
    # Whoever may look at pods may look at what they use.
    readers["metadata"]["labels"] |= {f"{_RBAC}/aggregate-to-{role}": "true" for role in ("view", "edit", "admin")}
    own = manifest(
        f"{_RBAC}/v1",
        "ClusterRole",
        "system:metrics-server",
        NAME,
        rules=[
            {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": _READ},
        ],
    )
    account: dict[str, Any] = {"subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}]}
    return [
        readers,
        own,
        manifest(
            f"{_RBAC}/v1", "ClusterRoleBinding", "system:metrics-server", NAME,
            roleRef=_role("ClusterRole", "system:metrics-server"), **account,
        ),
        # An API server beside the real one asks that one who is calling, and what he may do.
        manifest(
            f"{_RBAC}/v1", "ClusterRoleBinding", "metrics-server:system:auth-delegator", NAME,
            roleRef=_role("ClusterRole", "system:auth-delegator"), **account,
        ),
        manifest(
            f"{_RBAC}/v1", "RoleBinding", "metrics-server-auth-reader", NAME, namespace=NAMESPACE,
            roleRef=_role("Role", "extension-apiserver-authentication-reader"), **account,
        ),
    ]  # fmt: skip


def _deployment(image: str) -> dict[str, Any]:
    labels = {"k8s-app": NAME}
    container: dict[str, Any] = {
        "name": NAME,
        "image": image,
        **CONTAINER,
        "args": [
            f"--secure-port={_PORT}",
            f"--tls-cert-file={_TLS}/tls.crt",
            f"--tls-private-key-file={_TLS}/tls.key",
            # Never --kubelet-insecure-tls: whoever answers in a kubelet's place would get this account's token.
            "--kubelet-certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",
            "--kubelet-use-node-status-port",
            "--metric-resolution=15s",
        ],
        "ports": [{"name": "https", "containerPort": _PORT, "protocol": "TCP"}],
        "livenessProbe": _probe("/livez", 3),
        "readinessProbe": {**_probe("/readyz", 3), "initialDelaySeconds": 20},
        "resources": {"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"memory": "400Mi"}},
        "securityContext": container_security(),
        "volumeMounts": [{"name": "tls", "mountPath": _TLS, "readOnly": True}],
    }
    pod: dict[str, Any] = {
        "serviceAccountName": NAME,
        "priorityClassName": "system-cluster-critical",
        **on_control_plane(),
        "securityContext": pod_security(_USER),
        "containers": [container],
        "volumes": [tls_volume(_CERTIFICATE)],
    }
    return manifest(
        "apps/v1",
        "Deployment",
        NAME,
        NAME,
        namespace=NAMESPACE,
        spec={
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    )


def _probe(path: str, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "https", "scheme": "HTTPS"},
        "periodSeconds": 10,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _role(kind: str, name: str) -> dict[str, str]:
    return {"apiGroup": _RBAC, "kind": kind, "name": name}
