"""Flannel, the network of pods by default: objects for the cluster, as its documentation describes them.

Source: https://github.com/flannel-io/flannel/blob/master/Documentation/kubernetes.md and .../configuration.md.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from typing import Any

import yaml

NAMESPACE = "kube-flannel"
NAME = "kube-flannel-ds"
SOURCE = "ghcr.io/flannel-io"
IMAGE, PLUGIN_IMAGE = "flannel:v0.26.7", "flannel-cni-plugin:v1.6.2-flannel1"
_FIELDS = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "HOST_IP": "status.hostIP"}


def flannel_manifest(pods: IPv4Network, images: str | None = None) -> str:
    """Return all objects as YAML documents, for ``kubectl apply``.

    Args:
        pods: the cluster's network of pods; kubeadm must have been told the same.
        images: registry and prefix of the images; None: where the project puts them.
    """
    objects = (_namespace(), *_rights(), _configuration(pods), _daemons(images or SOURCE))
    return "---\n".join(yaml.safe_dump(item, sort_keys=False) for item in objects)


def _namespace() -> dict[str, Any]:
    # Its pods are part of the nodes' own network: no other namespace gets this.
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def _rights() -> tuple[dict[str, Any], ...]:
    api = "rbac.authorization.k8s.io"
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
    ]
    return (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "flannel", "namespace": NAMESPACE}},
        {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": {"name": "flannel"}, "rules": rules},
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "flannel"},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": "flannel"},
            "subjects": [{"kind": "ServiceAccount", "name": "flannel", "namespace": NAMESPACE}],
        },
    )


def _configuration(pods: IPv4Network) -> dict[str, Any]:
    plugins = [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    data = {
        "cni-conf.json": json.dumps({"name": "cbr0", "cniVersion": "0.3.1", "plugins": plugins}, indent=2),
        "net-conf.json": json.dumps({"Network": str(pods), "EnableNFTables": False, "Backend": {"Type": "vxlan"}}),
    }
    metadata = {"name": "kube-flannel-cfg", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _daemons(images: str) -> dict[str, Any]:
    labels = {"app": "flannel"}
    pod = {
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "serviceAccountName": "flannel",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        # A node is tainted as not ready until this very pod runs on it.
        "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
        "initContainers": [
            _copy(
                "install-cni-plugin",
                f"{images}/{PLUGIN_IMAGE}",
                "/flannel",
                "/opt/cni/bin/flannel",
                ("plugin", "/opt/cni/bin"),
            ),
            _copy(
                "install-cni",
                f"{images}/{IMAGE}",
                "/etc/kube-flannel/cni-conf.json",
                "/etc/cni/net.d/10-flannel.conflist",
                ("cni", "/etc/cni/net.d"),
                ("configuration", "/etc/kube-flannel"),
            ),
        ],
        "containers": [
            {
                "name": "kube-flannel",
                "image": f"{images}/{IMAGE}",
                "command": ["/opt/bin/flanneld"],
                # By the address that the node was joined with: on a machine with several it would take the first.
                "args": ["--ip-masq", "--kube-subnet-mgr", "--iface=$(HOST_IP)"],
                "resources": {"requests": {"cpu": "100m", "memory": "50Mi"}},
                "securityContext": {"privileged": False, "capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}},
                "env": [
                    {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in _FIELDS.items()
                ],
                "volumeMounts": [
                    _mount("run", "/run/flannel"),
                    _mount("configuration", "/etc/kube-flannel"),
                    _mount("xtables-lock", "/run/xtables.lock"),
                ],
            }
        ],
        "volumes": [
            {"name": "run", "hostPath": {"path": "/run/flannel"}},
            {"name": "plugin", "hostPath": {"path": "/opt/cni/bin"}},
            {"name": "cni", "hostPath": {"path": "/etc/cni/net.d"}},
            # What is copied from it to the node is for root alone.
            {"name": "configuration", "configMap": {"name": "kube-flannel-cfg", "defaultMode": 0o600}},
            {"name": "xtables-lock", "hostPath": {"path": "/run/xtables.lock", "type": "FileOrCreate"}},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }


def _copy(name: str, image: str, source: str, target: str, *mounts: tuple[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "command": ["cp"],
        "args": ["-f", source, target],
        "volumeMounts": [_mount(*mount) for mount in mounts],
    }


def _mount(name: str, path: str) -> dict[str, str]:
    return {"name": name, "mountPath": path}
