"""The work pool ``kubernetes``: what a run's Job is made from, and what a person may set about it.

The Job itself is rendered by Prefect's worker from the pool's base job template: a variable that has no value takes
its key with it, which is how a run without GPUs has none in its limits. Sources: the template's rules in
``prefect.workers.base``, the Job's fields in https://kubernetes.io/docs/reference/kubernetes-api/.
"""

from __future__ import annotations

from typing import Any

from configs.cluster import Resources
from configs.problems import Problem, UserError
from configs.quantity import parse_quantity
from infra.kubernetes.environment import login_variables
from infra.kubernetes.manifests import (
    CACHE,
    CODE,
    CORES,
    ENVIRONMENT,
    IMAGE_HOME,
    IMAGE_USER,
    NODE,
    POD,
    RUN,
    amounts,
    labels,
    pod_security,
)
from infra.kubernetes.platform.share import share_volumes
from infra.kubernetes.platform.wanted import Wanted
from infra.kubernetes.pods import CACHE_MOUNT, SHM_MOUNT, cache_owner, cache_volume, shm_volume, spread
from infra.kubernetes.pool_variables import variables

GRACE_S = 60
"""Seconds between SIGTERM and SIGKILL: the stage has 20, the last copy of its checkpoint 20, the engine the rest."""


def base_job_template(wanted: Wanted) -> dict[str, Any]:
    """Return the pool's base job template: the Job's manifest, and the form of what may be set about it.

    Raises:
        UserError: the site's resources contradict each other.
    """
    _check(wanted.cluster.training)
    return {
        "job_configuration": {
            "name": "{{ name }}",
            "command": "{{ command }}",
            "namespace": "{{ namespace }}",
            "labels": labels(RUN),
            "annotations": {},
            "env": dict(_VARIABLES),
            "job_manifest": _job(wanted),
        },
        "variables": variables(wanted.cluster, wanted.image, list(wanted.pull_secrets)),
    }


_VARIABLES = {
    "MLOPS_CACHE": CACHE,
    # The worker hands its own settings on, its folders among them.
    "PREFECT_HOME": f"{IMAGE_HOME}/prefect",
    "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "reschedule",
}
"""Variables of every run besides those of the ConfigMap."""


def _check(training: Resources) -> None:
    if parse_quantity(training.shm) >= parse_quantity(training.memory):
        raise UserError(
            Problem(
                "cluster.training.shm",
                f"is {training.shm}, which leaves nothing of memory {training.memory} that it counts into",
                "set shm lower, or memory higher",
            )
        )


def _job(wanted: Wanted) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "labels": labels(RUN),
            "annotations": {},
            "namespace": "{{ namespace }}",
            "generateName": "{{ name }}-",
        },
        "spec": {
            # Prefect starts the run again, with a Job of its own: two of them would train twice.
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": "{{ ttl_s }}",
            "activeDeadlineSeconds": "{{ deadline_s }}",
            "template": {"metadata": {"labels": labels(RUN)}, "spec": _pod(wanted)},
        },
    }


def _pod(wanted: Wanted) -> dict[str, Any]:
    share, share_mounts = share_volumes(wanted.share, csi_smb=wanted.csi_smb)
    wanted_amounts = {"cpu": "{{ cpu }}", "memory": "{{ memory }}"}
    return {
        # Prefect's worker demands these two here; the API server drops them, and the Job's own are 1, too.
        "parallelism": 1,
        "completions": 1,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "serviceAccountName": "{{ service_account }}",
        "priorityClassName": "{{ priority_class }}",
        "imagePullSecrets": "{{ image_pull_secrets }}",
        "nodeSelector": "{{ node_selector }}",
        "tolerations": "{{ tolerations }}",
        "affinity": "{{ affinity }}",
        "topologySpreadConstraints": spread(labels(RUN)),
        "securityContext": pod_security(IMAGE_USER),
        "initContainers": [
            cache_owner("{{ image }}", "{{ image_pull_policy }}", amounts("{{ cpu }}", "32Mi", "{{ cpu }}", "32Mi"))
        ],
        "containers": [
            {
                "name": "prefect-job",
                "image": "{{ image }}",
                "imagePullPolicy": "{{ image_pull_policy }}",
                "args": "{{ command }}",
                "workingDir": CODE,
                "envFrom": [{"configMapRef": {"name": ENVIRONMENT}}],
                "env": [*login_variables(), *_own_environment()],
                "resources": {"requests": wanted_amounts, "limits": wanted_amounts | {"nvidia.com/gpu": "{{ gpus }}"}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [dict(CACHE_MOUNT), dict(SHM_MOUNT), *share_mounts],
            }
        ],
        "volumes": [cache_volume("{{ cache }}"), shm_volume("{{ shm }}"), *share],
    }


def _own_environment() -> list[dict[str, Any]]:
    """Variables whose values only the node knows: where the run is, and how many processors it may use."""
    fields = {NODE: "spec.nodeName", POD: "metadata.name"}
    cores = {"containerName": "prefect-job", "resource": "limits.cpu", "divisor": "1"}
    return [
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()),
        *({"name": name, "valueFrom": {"resourceFieldRef": cores}} for name in (CORES, "OMP_NUM_THREADS")),
    ]
