"""The pod of one worker of a distributed training. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from configs.ddp import Volcano
from infra.ddp.command import rank_environment, threads_a_rank, torchrun_options
from infra.ddp.launch import Gang
from infra.kubernetes.manifests import CACHE, CODE, IMAGE_USER, amounts, pod_security, pull_secrets, values
from infra.kubernetes.manifests import labels as labels_of
from infra.kubernetes.pods import (
    CACHE_MOUNT,
    SHM_MOUNT,
    bound_to_lost_node,
    cache_owner,
    cache_volume,
    shm_volume,
    spread,
)

Manifest = dict[str, Any]

CONTAINER = "worker"
GANG, FLOW_RUN = "mlops/gang", "mlops/flow-run"
COMPONENT = "gang"
PORT = 29500
"""Of the rendezvous, torchrun's usual one."""
GRACE_S = 30
"""Seconds of a pod between SIGTERM and SIGKILL: more than the ranks have, see :mod:`infra.ddp.command`."""
NODE_LOST_S = 30
"""Seconds after which the pods of a node that is not ready are given up; Kubernetes' own default is 300."""
ROOT = PurePosixPath(CODE)
LOG_NAME = "worker-$(JOB_COMPLETION_INDEX).$(POD)"


@dataclass(frozen=True)
class Space:
    """What a cluster gives every gang: where its pods run, and what they find there.

    Attributes:
        image: holds the code at :data:`ROOT`.
        cache: folder of the node for DVC's cache.
        shm: the most bytes that ``/dev/shm`` may hold; they count into the worker's memory.
        ttl_s: seconds that a finished Job with its pods and their logs is kept.
        domain: of the cluster's DNS.
        pull_secrets: names of the Secrets to pull the image with.
        kept: folder in a pod below which is kept what must outlive it.
        share_volumes, share_mounts: with which a pod mounts the share.
        environment: of every pod: how it reaches the share.
        deadline_s: seconds after which a gang is ended; None: never.
    """

    namespace: str
    image: str
    cache: PurePosixPath
    shm: int
    ttl_s: int
    kept: PurePosixPath
    share_volumes: tuple[Manifest, ...]
    share_mounts: tuple[Manifest, ...]
    domain: str = "cluster.local"
    pull_secrets: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    priority_class: str | None = None
    deadline_s: int | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()

    @property
    def home(self) -> PurePosixPath:
        """The state folder in a pod."""
        return ROOT / ".mlops"


def labels(gang: Gang) -> dict[str, str]:
    """Return the labels of all objects of a gang.

    Never ``prefect.io/flow-run-id``: Prefect's worker would take each pod that fails for the flow's own.
    """
    return {**labels_of(COMPONENT), GANG: gang.name, FLOW_RUN: gang.flow_run_id}


def folder(gang: Gang) -> PurePosixPath:
    """Return where a gang's output and events are, below the share or the state folder."""
    return PurePosixPath("gangs") / gang.name


def pod(gang: Gang, space: Space) -> Manifest:
    """Return the template of a worker's pod."""
    # How Volcano finds a pod's PodGroup.
    group = {"annotations": {"scheduling.k8s.io/group-name": gang.name}} if isinstance(gang.scheduler, Volcano) else {}
    return {"metadata": {"labels": labels(gang), **group}, "spec": _spec(gang, space)}


def total(gang: Gang) -> dict[str, str]:
    """Return what the least number of workers needs together."""
    return amounts_of(gang, gang.least)


def _spec(gang: Gang, space: Space) -> Manifest:
    owner = cache_owner(space.image, "IfNotPresent", amounts("10m", "32Mi", "1", "32Mi"))
    return {
        "subdomain": gang.name,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(IMAGE_USER),
        **({"schedulerName": "volcano"} if isinstance(gang.scheduler, Volcano) else {}),
        **({"priorityClassName": space.priority_class} if space.priority_class else {}),
        **pull_secrets(space.pull_secrets),
        **({"nodeSelector": dict(space.node_selector)} if space.node_selector else {}),
        "tolerations": [
            *bound_to_lost_node(NODE_LOST_S),
            *(dict(toleration) for toleration in space.tolerations),
        ],
        "topologySpreadConstraints": spread({GANG: gang.name}),
        **({"initContainers": [owner]} if gang.data else {}),
        "containers": [_worker(gang, space)],
        "volumes": _volumes(gang, space),
    }


def _worker(gang: Gang, space: Space) -> Manifest:
    resources = amounts_of(gang, 1)
    return {
        "name": CONTAINER,
        "image": space.image,
        "imagePullPolicy": "IfNotPresent",
        "workingDir": str(ROOT),
        "command": ["python", "-m", "infra.ddp.agent"],
        "args": _arguments(gang, space),
        "env": [
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *values(_environment(gang, space)),
        ],
        "ports": [{"name": "rendezvous", "containerPort": PORT, "protocol": "TCP"}],
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            dict(SHM_MOUNT),
            {"name": "home", "mountPath": str(space.home)},
            *([dict(CACHE_MOUNT)] if gang.data else []),
            *(dict(mount) for mount in space.share_mounts),
        ],
    }


def _volumes(gang: Gang, space: Space) -> list[Manifest]:
    # More than half of the memory in /dev/shm leaves too little for the processes that fill it.
    shm = bytes_text(min(space.shm, gang.memory // 2))
    return [
        shm_volume(shm),
        {"name": "home", "emptyDir": {}},
        *([cache_volume(str(space.cache))] if gang.data else []),
        *(dict(volume) for volume in space.share_volumes),
    ]


def _arguments(gang: Gang, space: Space) -> list[str]:
    # Five dots: what a pod's resolver takes for a full name, so that it asks once.
    peers = f"{gang.name}-{{}}.{gang.name}.{space.namespace}.svc.{space.domain}"
    log_dir = space.home / "ranks"
    wait_s = gang.rendezvous_s + gang.below_least_s
    options = torchrun_options(
        gang,
        nodes=f"{gang.least}:{gang.most}",
        processes=gang.processes,
        endpoint=f"{peers.format(0)}:{PORT}",
        log_dir=log_dir,
        # The launcher knows why workers are missing, and ends the gang before torchrun gives up.
        more={"join_timeout": str(wait_s)},
    )
    own = {
        "peers": peers,
        "index": "$(JOB_COMPLETION_INDEX)",
        "most": gang.most,
        "port": PORT,
        "restarts": gang.max_restarts,
        "wait-s": wait_s,
        "log-dir": log_dir,
        **({"data": gang.data.file} if gang.data else {}),
        # Of a pod that is gone, Kubernetes has no log any more.
        "log": space.kept / folder(gang) / "logs" / f"{LOG_NAME}.log",
    }
    return [*(f"--{key}={value}" for key, value in own.items()), "--", *options]


def _environment(gang: Gang, space: Space) -> dict[str, str]:
    ranks = rank_environment(
        gang,
        threads=threads_a_rank(gang.cpu, gang.processes),
        data=str(ROOT / gang.data.folder) if gang.data else None,
        checkpoints=str(space.kept / gang.checkpoints),
        output=str(space.kept / folder(gang) / "output"),
        events=str(space.kept / folder(gang) / "events.jsonl"),
    )
    # HOME: the pod's user need not have a folder of its own in the image.
    own = {"HOME": str(space.home), "MLOPS_HOME": str(space.home), **space.environment}
    return {**own, **({"MLOPS_CACHE": CACHE} if gang.data else {}), **ranks}


def amounts_of(gang: Gang, workers: int) -> dict[str, str]:
    """Return what so many workers need together, as Kubernetes writes it."""
    gpus = {"nvidia.com/gpu": str(gang.gpus * workers)} if gang.gpus else {}
    return {"cpu": f"{math.ceil(gang.cpu * workers * 1000)}m", "memory": bytes_text(gang.memory * workers), **gpus}


def bytes_text(number: int) -> str:
    """Return bytes as people read them, where that is exact."""
    return f"{number >> 20}Mi" if number % (1 << 20) == 0 else str(number)
