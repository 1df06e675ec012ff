"""Configuration files of kubeadm, v1beta4: how a control plane is made, and how a node joins it.

Keys: https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/ and, for the node itself,
https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import PurePosixPath
from typing import Any

import yaml

from configs.kubernetes import Kubernetes
from configs.machines import Network
from infra.kubeadm.hardening import KUBELET, api_server_arguments, api_server_files

API = "kubeadm.k8s.io/v1beta4"
PORT = 6443
CRI_SOCKET = "unix:///run/containerd/containerd.sock"
AUDIT_POLICY = PurePosixPath("/etc/kubernetes/audit-policy.yaml")
AUDIT_LOG = PurePosixPath("/var/log/kubernetes/audit/audit.log")
ENCRYPTION = PurePosixPath("/etc/kubernetes/encryption.yaml")
INIT_TTL = "15m0s"
_TLS = "VersionTLS12"
_VERSION = r"(?m)^kubernetesVersion: v(\S+)$"


@dataclass(frozen=True)
class Cluster:
    """What all nodes agree on.

    Attributes:
        version: without ``v``. endpoint: a name that every node knows. pods, services: networks.
        images: registry and prefix of all images; None: where their projects put them.
        kubelet, kube_proxy: more keys of their configurations, which win over ours.
        ignored: checks of kubeadm that may fail.
    """

    version: str
    endpoint: str
    pods: IPv4Network
    services: IPv4Network
    images: str | None = None
    kubelet: Mapping[str, Any] = field(default_factory=dict)
    kube_proxy: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @property
    def dns(self) -> IPv4Address:
        """Return the address of the cluster's DNS: kubeadm gives it the tenth of the services' network."""
        return self.services[10]


def cluster_of(asked: Kubernetes, network: Network) -> Cluster:
    """Return what a site's sections say."""
    return Cluster(
        asked.version,
        asked.endpoint,
        network.pods,
        network.services,
        images=asked.images,
        kubelet=asked.kubelet,
        kube_proxy=asked.kube_proxy,
        ignored=asked.ignore_preflight,
    )


def init_configuration(cluster: Cluster, name: str, address: str, *, works: bool = False) -> str:
    """Return the file for ``kubeadm init --config``, in YAML documents.

    Args:
        name, address: of the control plane's machine.
        works: pods of everybody may run there; else only those that it needs itself.
    """
    registration = _registration(cluster, name, address) | ({"taints": []} if works else {})
    proxy = {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", **cluster.kube_proxy}
    return _documents(
        {
            "apiVersion": API,
            "kind": "InitConfiguration",
            # Without this, kubeadm makes a token of 24 hours; this one nobody is told, and joins make their own.
            "bootstrapTokens": [{"ttl": INIT_TTL, "description": "of kubeadm init", **_TOKEN_FOR}],
            "localAPIEndpoint": {"advertiseAddress": address, "bindPort": PORT},
            "nodeRegistration": registration,
        },
        {
            "apiVersion": API,
            "kind": "ClusterConfiguration",
            "kubernetesVersion": f"v{cluster.version}",
            "clusterName": cluster.endpoint,
            **({"imageRepository": cluster.images} if cluster.images else {}),
            "controlPlaneEndpoint": f"{cluster.endpoint}:{PORT}",
            "networking": {"podSubnet": str(cluster.pods), "serviceSubnet": str(cluster.services)},
            "apiServer": {
                "certSANs": [cluster.endpoint, name, address],
                "extraArgs": _arguments(_API_SERVER | api_server_arguments(cluster.version)),
                "extraVolumes": [
                    _volume("audit-policy", AUDIT_POLICY),
                    _volume("audit-log", AUDIT_LOG.parent, writable=True),
                    _volume("encryption", ENCRYPTION),
                    *(_volume(path.stem, path) for path in api_server_files(cluster.version)),
                ],
            },
            "controllerManager": {
                "extraArgs": _arguments({"profiling": "false", "terminated-pod-gc-threshold": "500"})
            },
            "scheduler": {"extraArgs": _arguments({"profiling": "false"})},
        },
        {**_KUBELET, **cluster.kubelet},
        *((proxy,) if cluster.kube_proxy else ()),
    )


def told_version(text: str) -> str:
    """Return the version in a file of :func:`init_configuration`, without ``v``; empty: there is none."""
    found = re.search(_VERSION, text)
    return found[1] if found else ""


def with_version(text: str, version: str) -> str:
    """Return a file of :func:`init_configuration` with another version, and else as it is."""
    return re.sub(_VERSION, f"kubernetesVersion: v{version}", text)


def join_configuration(cluster: Cluster, name: str, address: str, token: str, ca_hash: str) -> str:
    """Return the file for ``kubeadm join --config``: secret, for as long as the token lives.

    Args:
        name, address: of the machine that joins.
        token: of ``kubeadm token create``.
        ca_hash: ``sha256:`` and the digest of the cluster CA's SubjectPublicKeyInfo; whoever cannot show that CA is not
            the control plane.
    """
    discovery = {"apiServerEndpoint": f"{cluster.endpoint}:{PORT}", "token": token, "caCertHashes": [ca_hash]}
    return _documents(
        {
            "apiVersion": API,
            "kind": "JoinConfiguration",
            "discovery": {"bootstrapToken": discovery},
            "nodeRegistration": _registration(cluster, name, address),
        }
    )


_TOKEN_FOR = {
    "usages": ["signing", "authentication"],
    "groups": ["system:bootstrappers:kubeadm:default-node-token"],
}

_API_SERVER = {
    "audit-policy-file": str(AUDIT_POLICY),
    "audit-log-path": str(AUDIT_LOG),
    "audit-log-maxage": "30",
    "audit-log-maxbackup": "10",
    "audit-log-maxsize": "100",
    "encryption-provider-config": str(ENCRYPTION),
    "profiling": "false",
    "tls-min-version": _TLS,
}

_KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "cgroupDriver": "systemd",
    "rotateCertificates": True,
    # Its serving certificate is one of the cluster's CA, which the site approves; else it signs one itself, and
    # nobody who asks a kubelet can tell whether it is one.
    "serverTLSBootstrap": True,
    "protectKernelDefaults": True,
    "seccompDefault": True,
    "tlsMinVersion": _TLS,
    **KUBELET,
    "podPidsLimit": 4096,
    # At a reboot trainings get the time to write a checkpoint.
    "shutdownGracePeriod": "90s",
    "shutdownGracePeriodCriticalPods": "30s",
}


def _registration(cluster: Cluster, name: str, address: str) -> dict[str, Any]:
    # On a machine with several addresses kubelet would take the first, which may be that of another network.
    registration = {"name": name, "criSocket": CRI_SOCKET, "kubeletExtraArgs": _arguments({"node-ip": address})}
    return registration | ({"ignorePreflightErrors": list(cluster.ignored)} if cluster.ignored else {})


def _arguments(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _volume(name: str, path: PurePosixPath, *, writable: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "hostPath": str(path),
        "mountPath": str(path),
        "readOnly": not writable,
        "pathType": "DirectoryOrCreate" if writable else "File",
    }


def _documents(*documents: Mapping[str, Any]) -> str:
    return "---\n".join(yaml.safe_dump(dict(item), sort_keys=False) for item in documents)
