"""What the CIS Kubernetes Benchmark asks for and kubeadm leaves open: arguments, and the files that they name.

``docs/hardening.md`` has a row for each item, with its reason. Sources: the benchmark's version 1.11;
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#anonymous-authenticator-configuration,
https://kubernetes.io/docs/tasks/configure-pod-container/enforce-standards-admission-controller/ and
https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#eventratelimit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

ADMISSION = PurePosixPath("/etc/kubernetes/admission.yaml")
AUTHENTICATION = PurePosixPath("/etc/kubernetes/authentication.yaml")
KUBELET_CONFIG = PurePosixPath("/var/lib/kubelet/config.yaml")
CIPHERS = tuple(
    f"TLS_ECDHE_{key}_WITH_AES_{cipher}" for key in ("ECDSA", "RSA") for cipher in ("128_GCM_SHA256", "256_GCM_SHA384")
)
"""Of TLS 1.2: those that the benchmark names for API server and kubelet both. TLS 1.3 has no others."""
PLUGINS = ("NodeRestriction", "DenyServiceExternalIPs", "EventRateLimit")
"""Admission plugins beside those that are on by default; the first is kubeadm's own, which our list replaces."""
ANONYMOUS_PATHS = ("/livez", "/readyz", "/healthz", "/api/v1/namespaces/kube-public/configmaps/cluster-info")
"""What is answered without a login: the probes of kubelet and kubeadm, and where a joining node reads the CA."""
_ANONYMOUS_BY_PATH = (1, 32)
"""The first minor version where that can be said."""

KUBELET: Mapping[str, Any] = {"tlsCipherSuites": list(CIPHERS)}


def api_server_arguments(version: str) -> dict[str, str]:
    """Return arguments of the API server.

    Args:
        version: of Kubernetes, without ``v``.
    """
    arguments = {
        "admission-control-config-file": str(ADMISSION),
        "enable-admission-plugins": ",".join(PLUGINS),
        # Logs are asked of nobody but the node: the site approves each kubelet's certificate (serverTLSBootstrap).
        "kubelet-certificate-authority": "/etc/kubernetes/pki/ca.crt",
        "service-account-extend-token-expiration": "false",
        "tls-cipher-suites": ",".join(CIPHERS),
    }
    return arguments | ({"authentication-config": str(AUTHENTICATION)} if _by_path(version) else {})


def api_server_files(version: str) -> dict[PurePosixPath, str]:
    """Return the files that :func:`api_server_arguments` names, by their paths on the control plane."""
    files = {ADMISSION: _admission()}
    return files | ({AUTHENTICATION: _authentication()} if _by_path(version) else {})


def _by_path(version: str) -> bool:
    major, minor, *_ = version.split(".")
    return (int(major), int(minor)) >= _ANONYMOUS_BY_PATH


def _authentication() -> str:
    anonymous = {"enabled": True, "conditions": [{"path": path} for path in ANONYMOUS_PATHS]}
    return _text("apiserver.config.k8s.io/v1beta1", "AuthenticationConfiguration", {"anonymous": anonymous})


def _admission() -> str:
    # A pod that crashes in a loop writes events without end, and etcd keeps each for an hour.
    limits = [
        {"type": "Namespace", "qps": 50, "burst": 200, "cacheSize": 1000},
        {"type": "User", "qps": 20, "burst": 100, "cacheSize": 1000},
    ]
    # Of namespaces that say nothing themselves. Deployments are taken whatever their pods say: they are warned of.
    pods = {
        "defaults": {
            "enforce": "baseline",
            "enforce-version": "latest",
            "warn": "baseline",
            "warn-version": "latest",
            "audit": "restricted",
            "audit-version": "latest",
        },
        "exemptions": {"namespaces": ["kube-system"]},
    }
    plugins = [
        {
            "name": "EventRateLimit",
            "configuration": _object("eventratelimit.admission.k8s.io/v1alpha1", "Configuration", {"limits": limits}),
        },
        {
            "name": "PodSecurity",
            "configuration": _object("pod-security.admission.config.k8s.io/v1", "PodSecurityConfiguration", pods),
        },
    ]
    return _text("apiserver.config.k8s.io/v1", "AdmissionConfiguration", {"plugins": plugins})


def _text(api: str, kind: str, rest: Mapping[str, Any]) -> str:
    return yaml.safe_dump(_object(api, kind, rest), sort_keys=False)


def _object(api: str, kind: str, rest: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, **rest}
