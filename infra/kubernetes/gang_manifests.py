"""The objects of a distributed training on a cluster: one Indexed Job, a headless Service, and what a queue wants. Pure.

Each worker of the gang is a pod of the Job, named ``<gang>-<index>`` in the Service. What becomes of a lost pod is said
in the Job, so that it holds while no controller is there:

- Evicted, preempted or drained (condition ``DisruptionTarget``): replaced, as often as it happens.
- Killed, or ended by the agent because the gang fell apart: replaced, ``max_restarts`` times in all.
- A rank that failed by itself, with whatever code: the Job fails at once, another pod would fail as well.
- The pod with index 0 succeeded: so did the gang, because it holds rank 0 and torchrun ends only with all ranks.

https://kubernetes.io/docs/concepts/workloads/controllers/job/ and .../tasks/job/pod-failure-policy/
"""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from configs.ddp import Kueue, Volcano
from infra.ddp.agent import PASSING
from infra.ddp.command import rank_environment, threads_a_rank, torchrun_options
from infra.ddp.launch import Gang

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
SHARE, CACHE = PurePosixPath("/share"), PurePosixPath("/cache")
USER = 10001


@dataclass(frozen=True)
class Space:
    """What a cluster gives every gang: where its pods run, and what they find there.

    Attributes:
        image: holds the code, see :mod:`infra.image`.
        root: the code's root in the image.
        domain: of the cluster's DNS.
        pull_secret: name of the Secret to pull the image with.
        share_claim: PersistentVolumeClaim of the share, mounted at ``/share``; None where nodes do not mount it.
        cache: folder of the node for DVC's cache.
        shm: the most bytes that ``/dev/shm`` may hold; they count into the worker's memory.
        deadline_s: seconds after which a gang is ended; None: never.
        ttl_s: seconds that a finished Job with its pods and their logs is kept.
    """

    namespace: str
    image: str
    cache: PurePosixPath
    shm: int
    ttl_s: int
    root: PurePosixPath = PurePosixPath("/opt/mlops")
    domain: str = "cluster.local"
    pull_secret: str | None = None
    share_claim: str | None = None
    priority_class: str | None = None
    deadline_s: int | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()

    def home(self) -> PurePosixPath:
        """Return the state folder in a pod."""
        return self.root / ".mlops"

    def kept(self) -> PurePosixPath:
        """Return the folder below which is kept what must outlive a pod: the share, or else the pod's own disk."""
        return SHARE if self.share_claim else self.home()


def labels(gang: Gang) -> dict[str, str]:
    """Return the labels of all objects of a gang. Never ``prefect.io/flow-run-id``: Prefect's worker would take each
    pod that fails for the flow's own."""
    return {
        "app.kubernetes.io/part-of": "mlops",
        "app.kubernetes.io/component": COMPONENT,
        "app.kubernetes.io/managed-by": "mlops",
        GANG: gang.name,
        FLOW_RUN: gang.flow_run_id,
    }


def folder(gang: Gang) -> PurePosixPath:
    """Return where a gang's output and events are, below the share or the state folder."""
    return PurePosixPath("gangs") / gang.name


def job(gang: Gang, space: Space) -> Manifest:
    """Return the Indexed Job: one pod a worker."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": gang.name, "namespace": space.namespace, "labels": _job_labels(gang)},
        "spec": {
            "completionMode": "Indexed",
            "completions": gang.most,
            "parallelism": gang.most,
            "backoffLimit": gang.max_restarts,
            # With a failure policy, Kubernetes replaces a pod only when its node has said that it has ended.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": CONTAINER,
                            "operator": "NotIn",
                            "values": [PASSING, 128 + signal.SIGKILL, 128 + signal.SIGTERM],
                        },
                    },
                ]
            },
            "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
            "ttlSecondsAfterFinished": space.ttl_s,
            **({"activeDeadlineSeconds": space.deadline_s} if space.deadline_s else {}),
            **({"suspend": True} if isinstance(gang.scheduler, Kueue) else {}),
            "template": {"metadata": _pod_metadata(gang), "spec": _pod(gang, space)},
        },
    }


def service(gang: Gang, space: Space, job_uid: str) -> Manifest:
    """Return the headless Service that gives the pods their names; it goes with its Job."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _owned(gang, space, job_uid),
        "spec": {
            "clusterIP": "None",
            # A pod is never ready before it has found its peers.
            "publishNotReadyAddresses": True,
            "selector": {GANG: gang.name},
            "ports": [{"name": "rendezvous", "port": PORT, "protocol": "TCP", "targetPort": PORT}],
        },
    }


def pod_group(gang: Gang, space: Space, job_uid: str, queue: str) -> Manifest:
    """Return Volcano's PodGroup: the least number of workers is placed at once, or none."""
    return {
        "apiVersion": "scheduling.volcano.sh/v1beta1",
        "kind": "PodGroup",
        "metadata": _owned(gang, space, job_uid),
        "spec": {
            "minMember": gang.least,
            "queue": queue,
            "minResources": _total(gang),
            **({"priorityClassName": space.priority_class} if space.priority_class else {}),
        },
    }


def _owned(gang: Gang, space: Space, job_uid: str) -> Manifest:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": gang.name, "uid": job_uid}
    return {
        "name": gang.name,
        "namespace": space.namespace,
        "labels": labels(gang),
        "ownerReferences": [owner | {"controller": False, "blockOwnerDeletion": False}],
    }


def _job_labels(gang: Gang) -> dict[str, str]:
    queue = {"kueue.x-k8s.io/queue-name": gang.scheduler.queue} if isinstance(gang.scheduler, Kueue) else {}
    return labels(gang) | queue


def _pod_metadata(gang: Gang) -> Manifest:
    group = {"scheduling.k8s.io/group-name": gang.name}  # how Volcano finds a pod's PodGroup
    return {"labels": labels(gang), **({"annotations": group} if isinstance(gang.scheduler, Volcano) else {})}


def _pod(gang: Gang, space: Space) -> Manifest:
    lost = [
        {
            "key": f"node.kubernetes.io/{key}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": NODE_LOST_S,
        }
        for key in ("not-ready", "unreachable")
    ]
    return {
        "subdomain": gang.name,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"schedulerName": "volcano"} if isinstance(gang.scheduler, Volcano) else {}),
        **({"priorityClassName": space.priority_class} if space.priority_class else {}),
        **({"imagePullSecrets": [{"name": space.pull_secret}]} if space.pull_secret else {}),
        **({"nodeSelector": dict(space.node_selector)} if space.node_selector else {}),
        "tolerations": [*lost, *(dict(toleration) for toleration in space.tolerations)],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {GANG: gang.name}},
            }
        ],
        "containers": [_container(gang, space)],
        "volumes": _volumes(gang, space),
    }


def _container(gang: Gang, space: Space) -> Manifest:
    return {
        "name": CONTAINER,
        "image": space.image,
        "imagePullPolicy": "IfNotPresent",
        "workingDir": str(space.root),
        "command": ["python", "-m", "infra.ddp.agent"],
        "args": _agent_arguments(gang, space),
        "env": [{"name": name, "value": value} for name, value in _environment(gang, space).items()],
        "ports": [{"name": "rendezvous", "containerPort": PORT, "protocol": "TCP"}],
        "resources": {
            # No limit of the processor: it would slow down a training for no one's benefit.
            "requests": _resources(gang),
            "limits": {key: value for key, value in _resources(gang).items() if key != "cpu"},
        },
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - shared memory of the container
            {"name": "home", "mountPath": str(space.home())},
            {"name": "cache", "mountPath": str(CACHE)},
            *([{"name": "share", "mountPath": str(SHARE)}] if space.share_claim else []),
        ],
    }


def _volumes(gang: Gang, space: Space) -> list[Manifest]:
    # More than half of the memory in /dev/shm leaves too little for the processes that fill it.
    shm = str(min(space.shm, gang.memory // 2))
    claim = {"name": "share", "persistentVolumeClaim": {"claimName": space.share_claim}}
    return [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shm}},
        {"name": "home", "emptyDir": {}},
        {"name": "cache", "hostPath": {"path": str(space.cache), "type": "DirectoryOrCreate"}},
        *([claim] if space.share_claim else []),
    ]


def _agent_arguments(gang: Gang, space: Space) -> list[str]:
    # Five dots: as many as a pod's resolver takes for a full name, so that it asks once.
    peers = f"{gang.name}-{{}}.{gang.name}.{space.namespace}.svc.{space.domain}"
    log_dir = space.home() / "ranks"
    wait_s = gang.rendezvous_s + gang.below_least_s
    options = torchrun_options(
        gang,
        nodes=f"{gang.least}:{gang.most}",
        processes=gang.processes,
        endpoint=f"{peers.format(0)}:{PORT}",
        log_dir=log_dir,
        # The launcher knows why workers are missing and ends the gang before this does.
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
    }
    return [*(f"--{key}={value}" for key, value in own.items()), "--", *options]


def _environment(gang: Gang, space: Space) -> dict[str, str]:
    kept = space.kept()
    ranks = rank_environment(
        gang,
        threads=threads_a_rank(gang.cpu, gang.processes),
        data=str(space.root / gang.data.folder) if gang.data else None,
        checkpoints=str(kept / gang.checkpoints),
        output=str(kept / folder(gang) / "output"),
        events=str(kept / folder(gang) / "events.jsonl"),
    )
    # HOME: the user of the image has a folder of its own only where the image made one.
    return {"HOME": str(space.home()), "MLOPS_HOME": str(space.home()), **ranks}


def _resources(gang: Gang) -> dict[str, str]:
    gpus = {"nvidia.com/gpu": str(gang.gpus)} if gang.gpus else {}
    return {"cpu": _cores(gang.cpu), "memory": str(gang.memory), **gpus}


def _total(gang: Gang) -> dict[str, str]:
    """What the least number of workers needs together."""
    gpus = {"nvidia.com/gpu": str(gang.gpus * gang.least)} if gang.gpus else {}
    return {"cpu": _cores(gang.cpu * gang.least), "memory": str(gang.memory * gang.least), **gpus}


def _cores(cores: float) -> str:
    return f"{math.ceil(cores * 1000)}m"
