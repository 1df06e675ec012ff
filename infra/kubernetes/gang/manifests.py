"""The objects of a distributed training on a cluster: one Indexed Job, a headless Service, what a queue wants. Pure.

Each worker of the gang is a pod of the Job, called ``<gang>-<index>`` in the Service. What becomes of a lost pod is
said in the Job, so that it holds while no controller is there:

- Evicted, preempted or drained (condition ``DisruptionTarget``): replaced, as often as it happens.
- Killed, lost with the power of its node, or ended by the agent because the gang fell apart: replaced,
  ``max_restarts`` times in all.
- A rank that failed by itself, with whatever code: the Job fails at once, another pod would fail as well.
- The pod with index 0 succeeded: so did the gang, because it holds rank 0 and its torchrun ends after all others.

https://kubernetes.io/docs/concepts/workloads/controllers/job/, https://kubernetes.io/docs/tasks/job/pod-failure-policy/
"""

from __future__ import annotations

import signal

from configs.ddp import Kueue
from infra.ddp.agent import PASSING, UNSEEN
from infra.ddp.launch import Gang
from infra.kubernetes.gang.pod import CONTAINER, GANG, PORT, Manifest, Space, labels, pod, total
from infra.kubernetes.kueue import QUEUE

RETRIED = (PASSING, 128 + signal.SIGKILL, 128 + signal.SIGTERM, UNSEEN)
"""Exit codes of a worker that another pod in its place can do better with; in the order that the API demands."""


def job(gang: Gang, space: Space) -> Manifest:
    """Return the Indexed Job: one pod a worker."""
    queue = {QUEUE: gang.scheduler.queue} if isinstance(gang.scheduler, Kueue) else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": gang.name, "namespace": space.namespace, "labels": labels(gang) | queue},
        "spec": {
            "completionMode": "Indexed",
            "completions": gang.most,
            "parallelism": gang.most,
            "backoffLimit": gang.max_restarts,
            # All that goes with a failure policy: a pod is replaced when its node has said that it has ended.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": CONTAINER, "operator": "NotIn", "values": [*RETRIED]},
                    },
                ]
            },
            "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
            "ttlSecondsAfterFinished": space.ttl_s,
            **({"activeDeadlineSeconds": space.deadline_s} if space.deadline_s else {}),
            # Kueue lets it go when all its workers have room.
            **({"suspend": True} if queue else {}),
            "template": pod(gang, space),
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
            # A worker is never ready before it has found its peers.
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
            "minResources": total(gang),
            "queue": queue,
            **({"priorityClassName": space.priority_class} if space.priority_class else {}),
        },
    }


def _owned(gang: Gang, space: Space, job_uid: str) -> Manifest:
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": gang.name,
        "uid": job_uid,
        "controller": False,
        "blockOwnerDeletion": False,
    }
    return {"name": gang.name, "namespace": space.namespace, "labels": labels(gang), "ownerReferences": [owner]}
