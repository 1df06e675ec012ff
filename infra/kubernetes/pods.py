"""The parts that pods of our runs have in common, be they a run's own or the workers of a distributed training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.kubernetes.manifests import CACHE, IMAGE_USER

CACHE_MOUNT = {"name": "cache", "mountPath": CACHE}
SHM_MOUNT = {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108 the pod's shared memory


def cache_volume(folder: str) -> dict[str, Any]:
    """Return the volume of :data:`CACHE_MOUNT`: a folder of the node, which outlives the pod."""
    return {"name": "cache", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}


def shm_volume(limit: str) -> dict[str, Any]:
    """Return the volume of :data:`SHM_MOUNT`; what it holds counts into the pod's memory."""
    return {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": limit}}


def cache_owner(image: str, pull_policy: str, resources: Mapping[str, Any]) -> dict[str, Any]:
    """Return the container that gives the node's folder, which the kubelet makes for root alone, to our group.

    It is root without any capability: the owner of a folder may give it to a group that he is in.
    """
    return {
        "name": "cache-owner",
        "image": image,
        "imagePullPolicy": pull_policy,
        "command": ["sh", "-c", f"chgrp {IMAGE_USER} {CACHE} && chmod 0770 {CACHE}"],
        "resources": dict(resources),
        "securityContext": {
            "runAsNonRoot": False,
            "runAsUser": 0,
            "runAsGroup": IMAGE_USER,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [dict(CACHE_MOUNT)],
    }


def spread(labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the wish that pods with ``labels`` are on different nodes, as far as these have room."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(labels)},
        }
    ]


def bound_to_lost_node(seconds: int) -> list[dict[str, Any]]:
    """Return the tolerations of a pod that is given up when its node has been away for ``seconds``."""
    return [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": seconds,
        }
        for taint in ("not-ready", "unreachable")
    ]
