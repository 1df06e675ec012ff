"""Parts that add-ons have in common: where their pods run, and the Secret of a server's certificate."""

from __future__ import annotations

import base64
from typing import Any

from infra.kubernetes.manifests import manifest
from infra.site.authority import ServerCertificate


def on_control_plane() -> dict[str, Any]:
    """Return the part of a pod that lets it run on the control plane, and there by preference: workers train."""
    key = "node-role.kubernetes.io/control-plane"
    preferred = {"weight": 100, "preference": {"matchExpressions": [{"key": key, "operator": "Exists"}]}}
    return {
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": key, "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}},
    }


def tls_secret(name: str, component: str, namespace: str, certificate: ServerCertificate) -> dict[str, Any]:
    """Return the Secret of a server's certificate and key."""
    data = {"tls.crt": encoded(certificate.certificate), "tls.key": encoded(certificate.key)}
    return manifest("v1", "Secret", name, component, namespace=namespace, type="kubernetes.io/tls", data=data)


def tls_volume(secret: str) -> dict[str, Any]:
    """Return the volume ``tls`` of such a Secret, which the pod's group can read."""
    return {"name": "tls", "secret": {"secretName": secret, "defaultMode": 0o440}}


def encoded(text: str) -> str:
    """Return base 64 of a text, as objects hold bytes."""
    return base64.b64encode(text.encode()).decode()
