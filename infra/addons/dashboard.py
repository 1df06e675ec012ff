"""Headlamp, the cluster's dashboard: TLS by the site's CA, an account that reads and one that may do everything.

The pod itself may do nothing: it passes on the token that a person gives it. Those are of minutes
(https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/); none is kept anywhere.
Source: https://headlamp.dev/docs/latest/installation/in-cluster/.
"""

from __future__ import annotations

import hashlib
from typing import Any

from infra.addons.images import HEADLAMP
from infra.addons.parts import on_control_plane, tls_secret, tls_volume
from infra.kubernetes.manifests import CONTAINER, container_security, labels, manifest, pod_security, scratch
from infra.site.authority import ServerCertificate

NAMESPACE = "mlops-dashboard"
NAME = "dashboard"
HOST = f"{NAME}.{NAMESPACE}.svc"
PORT = 4466
VIEWER, ADMIN = "dashboard-viewer", "dashboard-admin"
VIEWER_S, ADMIN_S = 3600, 600
"""Seconds that a token of each lives; 600 are the fewest that Kubernetes gives."""
_CERTIFICATE = "dashboard-tls"
_TLS = "/etc/dashboard"
_USER = 100
_RBAC = "rbac.authorization.k8s.io"


def dashboard_manifests(certificate: ServerCertificate, image: str = HEADLAMP) -> list[dict[str, Any]]:
    """Return all objects; they hold the certificate's key, so they are secret."""
    space = manifest("v1", "Namespace", NAMESPACE, NAME)
    space["metadata"]["labels"] |= {"pod-security.kubernetes.io/enforce": "restricted"}
    return [
        space,
        *_accounts(),
        tls_secret(_CERTIFICATE, NAME, NAMESPACE, certificate),
        _deployment(certificate, image),
    ]


def _accounts() -> list[dict[str, Any]]:
    accounts = [
        manifest("v1", "ServiceAccount", name, NAME, namespace=NAMESPACE, automountServiceAccountToken=False)
        for name in (NAME, VIEWER, ADMIN)
    ]
    read = ["get", "list", "watch"]
    # Kubernetes' own role `view` leaves secrets out, and all that belongs to no namespace.
    nodes = manifest(
        f"{_RBAC}/v1",
        "ClusterRole",
        "mlops-dashboard-viewer",
        NAME,
        rules=[
            {"apiGroups": [""], "resources": ["nodes", "persistentvolumes"], "verbs": read},
            {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses", "csidrivers", "csinodes"], "verbs": read},
            {"apiGroups": ["scheduling.k8s.io"], "resources": ["priorityclasses"], "verbs": read},
            {"apiGroups": ["node.k8s.io"], "resources": ["runtimeclasses"], "verbs": read},
            {"apiGroups": ["metrics.k8s.io"], "resources": ["nodes"], "verbs": read},
        ],
    )
    return [
        *accounts,
        nodes,
        _binding("mlops-dashboard-view", "view", VIEWER),
        _binding("mlops-dashboard-viewer", "mlops-dashboard-viewer", VIEWER),
        _binding("mlops-dashboard-admin", "cluster-admin", ADMIN),
    ]


def _binding(name: str, role: str, account: str) -> dict[str, Any]:
    return manifest(
        f"{_RBAC}/v1",
        "ClusterRoleBinding",
        name,
        NAME,
        roleRef={"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        subjects=[{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}],
    )


def _deployment(certificate: ServerCertificate, image: str) -> dict[str, Any]:
    probe = {
        "httpGet": {"path": "/", "port": PORT, "scheme": "HTTPS"},
        "periodSeconds": 10,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
    }
    container = {
        "name": NAME,
        "image": image,
        **CONTAINER,
        "args": [
            "-in-cluster",
            f"-port={PORT}",
            "-plugins-dir=/headlamp/plugins",
            f"-session-ttl={VIEWER_S}",
            f"-tls-cert-path={_TLS}/tls.crt",
            f"-tls-key-path={_TLS}/tls.key",
        ],
        "ports": [{"name": "https", "containerPort": PORT, "protocol": "TCP"}],
        "livenessProbe": probe,
        "readinessProbe": probe,
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "tls", "mountPath": _TLS, "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 the container's own
        ],
    }
    pod = {
        "serviceAccountName": NAME,
        # It finds the API server by this token, and may do nothing with it.
        "automountServiceAccountToken": True,
        **on_control_plane(),
        "securityContext": {**pod_security(_USER), "runAsGroup": 101, "fsGroup": 101},
        "containers": [container],
        "volumes": [
            tls_volume(_CERTIFICATE),
            scratch("scratch", "64Mi"),
        ],
    }
    # It reads its certificate when it starts: a renewed one is another pod.
    shown = {"mlops/certificate": hashlib.sha256(certificate.certificate.encode()).hexdigest()}
    return manifest(
        "apps/v1",
        "Deployment",
        NAME,
        NAME,
        namespace=NAMESPACE,
        spec={
            "replicas": 1,
            "selector": {"matchLabels": labels(NAME)},
            "template": {"metadata": {"labels": labels(NAME), "annotations": shown}, "spec": pod},
        },
    )
