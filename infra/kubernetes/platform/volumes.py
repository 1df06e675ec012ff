"""Where the platform's data is: claims, and volumes that are folders of one node where there are no storage classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.kubernetes.manifests import CONTAINER, amounts, manifest, shared_name
from infra.kubernetes.platform.wanted import Wanted


def claim(wanted: Wanted, name: str, component: str, size: str) -> list[dict[str, Any]]:
    """Return the claim ``name``, after its volume where that is a folder of a node."""
    state = wanted.cluster.state
    spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    if state.host_path is None or state.node is None:
        if state.storage_class is not None:
            spec["storageClassName"] = state.storage_class
        return [manifest("v1", "PersistentVolumeClaim", name, component, namespace=wanted.namespace, spec=spec)]
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [state.node]}
    source = {
        "hostPath": {"path": str(state.host_path / component), "type": "DirectoryOrCreate"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
    }
    return bound_volume(wanted, name, component, size, "ReadWriteOnce", source)


def bound_volume(
    wanted: Wanted, name: str, component: str, size: str, access: str, source: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return a volume and the claim ``name``, each of which names the other: nobody else's claim takes it.

    Args:
        source: the part of the volume's spec that says where it is. The volume outlives its claim.
    """
    volume = shared_name(wanted.namespace, component)
    amount = {"storage": size}
    kept = {"accessModes": [access], "storageClassName": ""}
    claim_of = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": wanted.namespace, "name": name}
    return [
        manifest(
            "v1",
            "PersistentVolume",
            volume,
            component,
            spec={
                **kept,
                "capacity": amount,
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": claim_of,
                **source,
            },
        ),
        manifest(
            "v1",
            "PersistentVolumeClaim",
            name,
            component,
            namespace=wanted.namespace,
            spec={**kept, "volumeName": volume, "resources": {"requests": amount}},
        ),
    ]


def own_folder(wanted: Wanted, image: str, user: int, mounted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the container that gives a node's folder to ``user`` at first; none for volumes of a storage class.

    The node makes such a folder for root, and ``fsGroup`` does not apply to it.
    """
    if wanted.cluster.state.host_path is None:
        return []
    return [
        {
            "name": "own-folder",
            "image": image,
            **CONTAINER,
            "command": ["chown", f"{user}:{user}", str(mounted["mountPath"])],
            "resources": amounts("10m", "16Mi", "100m", "64Mi"),
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
