"""What the API server writes down, and how it keeps secrets.

Sources: https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/ and
https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import yaml

KEY_BYTES = 32
"""AES-256, for ``secretbox`` (XSalsa20 and Poly1305) the only length there is."""


def audit_policy() -> str:
    """Return the audit policy: who did what to which object; contents neither of secrets nor of anything large."""
    rules: list[dict[str, Any]] = [
        # What nodes and controllers ask all the time would bury what people do.
        {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/metrics"]},
        {"level": "None", "resources": [{"group": "", "resources": ["events"]}]},
        {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
        {"level": "None", "userGroups": ["system:nodes"], "verbs": ["get", "list", "watch"]},
        {"level": "None", "users": ["system:kube-proxy"], "verbs": ["get", "list", "watch"]},
        # Their contents would be in the log: only that somebody read or wrote them.
        {
            "level": "Metadata",
            "resources": [
                {"group": "", "resources": ["secrets", "configmaps", "serviceaccounts/token"]},
                {"group": "authentication.k8s.io", "resources": ["tokenreviews"]},
            ],
        },
        {"level": "Request", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": "Metadata"},
    ]
    policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}
    return yaml.safe_dump(policy, sort_keys=False)


def encryption_configuration(key: str) -> str:
    """Return the API server's configuration that keeps secrets encrypted in etcd; it is secret itself.

    What was written before, without it, can still be read.

    Args:
        key: base 64 of ``KEY_BYTES`` random bytes.

    Raises:
        ValueError: it is none.
    """
    try:
        length = len(base64.b64decode(key, validate=True))
    except binascii.Error:
        length = 0
    if length != KEY_BYTES:
        raise ValueError(f"a key is base 64 of {KEY_BYTES} bytes")
    configuration = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [
            {
                "resources": ["secrets"],
                "providers": [{"secretbox": {"keys": [{"name": "site", "secret": key}]}}, {"identity": {}}],
            }
        ],
    }
    return yaml.safe_dump(configuration, sort_keys=False)
