"""NVIDIA's device plugin: GPUs as ``nvidia.com/gpu`` that pods ask for, on nodes that have some.

Source: https://github.com/NVIDIA/k8s-device-plugin#deployment-via-helm and, for RuntimeClasses,
https://kubernetes.io/docs/concepts/containers/runtime-class/.
"""

from __future__ import annotations

from typing import Any

from infra.addons.images import DEVICE_PLUGIN
from infra.kubernetes.manifests import CONTAINER, labels, manifest

NAME = "nvidia-device-plugin"
NAMESPACE = "kube-system"
RUNTIME_CLASS = "nvidia"
GPU_LABEL = "nvidia.com/gpu.present"
"""Of nodes that have one, with driver and runtime; the value is ``true``."""
_SOCKETS = "/var/lib/kubelet/device-plugins"


def device_plugin_manifests(image: str = DEVICE_PLUGIN) -> list[dict[str, Any]]:
    """Return the RuntimeClass and the plugin's DaemonSet."""
    pod = {
        "priorityClassName": "system-node-critical",
        # The libraries by which it counts the GPUs come into its container by this.
        "runtimeClassName": RUNTIME_CLASS,
        "automountServiceAccountToken": False,
        "nodeSelector": {GPU_LABEL: "true"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [
            {
                "name": NAME,
                "image": image,
                **CONTAINER,
                "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}],
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "sockets", "mountPath": _SOCKETS}],
            }
        ],
        "volumes": [{"name": "sockets", "hostPath": {"path": _SOCKETS, "type": "Directory"}}],
    }
    return [
        manifest("node.k8s.io/v1", "RuntimeClass", RUNTIME_CLASS, NAME, handler="nvidia"),
        manifest(
            "apps/v1",
            "DaemonSet",
            NAME,
            NAME,
            namespace=NAMESPACE,
            spec={
                "selector": {"matchLabels": labels(NAME)},
                "template": {"metadata": {"labels": labels(NAME)}, "spec": pod},
            },
        ),
    ]
