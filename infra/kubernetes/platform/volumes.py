"""Where the platform's data is: claims, and volumes that are folders of one node where there are no storage classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.kubernetes.manifests import CONTAINER, manifest
from infra.kubernetes.platform.wanted import Wanted


def claim(wanted: Wanted, name: str, component: str, size: str) -> list[dict[str, Any]]:
    """Return the claim ``name``, after its volume where that is a folder of a node."""
    state = wanted.cluster.state
    spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    if state.host_path is None or state.node is None:
        if state.storage_class is not None:
            spec["storageClassName"] = state.storage_class
        return [manifest("v1", "PersistentVolumeClaim", name, component, namespace=wanted.namespace, spec=spec)]
    volume = wanted.shared_name(component)
    spec |= {"storageClassName": "", "volumeName": volume}
    return [
        manifest(
            "v1",
            "PersistentVolume",
            volume,
            component,
            spec={
                "capacity": {"storage": size},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": wanted.namespace,
                    "name": name,
                },
                "hostPath": {"path": str(state.host_path / component), "type": "DirectoryOrCreate"},
                "nodeAffinity": {
                    "required": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [state.node]}
                                ]
                            }
                        ]
                    }
                },
            },
        ),
        manifest("v1", "PersistentVolumeClaim", name, component, namespace=wanted.namespace, spec=spec),
    ]


def own_folder(wanted: Wanted, image: str, user: int, mounted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a pod that gives a node's folder to ``user``; empty for volumes of a storage class.

    The node makes such a folder for root, and ``fsGroup`` does not apply to it.
    """
    if wanted.cluster.state.host_path is None:
        return {}
    path = str(mounted["mountPath"])
    return {
        "initContainers": [
            {
                "name": "own-folder",
                "image": image,
                **CONTAINER,
                "command": ["chown", f"{user}:{user}", path],
                "resources": {
                    "requests": {"cpu": "10m", "memory": "16Mi"},
                    "limits": {"cpu": "100m", "memory": "64Mi"},
                },
                "securityContext": {
                    "runAsNonRoot": False,
                    "runAsUser": 0,
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
                },
                "volumeMounts": [dict(mounted)],
            }
        ]
    }
