"""The work pool ``kubernetes``: what a run's Job is made from, what a person may set about it, and its deployments.

The Job itself is rendered by Prefect's worker from the pool's base job template: a variable that has no value takes
its key with it, which is how a run without GPUs has none in its limits. Sources: the template's rules in
``prefect.workers.base``, the Job's fields in https://kubernetes.io/docs/reference/kubernetes-api/.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from configs.cluster import Cluster, Resources
from configs.problems import Problem, UserError
from configs.quantity import parse_quantity
from configs.storage import DirectoryStorage, MountStorage, SmbStorage, Storage
from infra.kubernetes.pool_variables import variables
from infra.stack.environment import HEARTBEAT_S, QUIET

POOL = "kubernetes"
CODE = PurePosixPath("/opt/mlops")
CACHE = PurePosixPath("/cache")
SHARE = PurePosixPath("/share")
USER_ID = 10001
GRACE_S = 60
"""Seconds between SIGTERM and SIGKILL: the stage has 20, the last copy of its checkpoint 20, the engine the rest."""
LABELS = {
    "app.kubernetes.io/part-of": "mlops",
    "app.kubernetes.io/component": "run",
    "app.kubernetes.io/managed-by": "mlops",
}
ENVIRONMENT, CREDENTIALS, SHARE_LOGIN, REGISTRY_LOGIN = (
    "mlops-environment",
    "mlops-credentials",
    "mlops-share",
    "mlops-registry",
)
SHARE_CLAIM, SHARE_PASSWORD = "mlops-share", "SHARE_PASSWORD"


def base_job_template(
    cluster: Cluster, storage: Storage, image: str, *, registry_login: bool = False
) -> dict[str, Any]:
    """Return the pool's base job template: the Job's manifest and the form of what may be set about it.

    Args:
        storage: the site's share; the cluster's own section ``share`` goes before it.
        image: the default image, by digest.
        registry_login: pulling it needs the Secret ``mlops-registry``.

    Raises:
        UserError: pods cannot reach the share, or resources contradict each other.
    """
    training = cluster.training
    _check(training)
    share = pod_share(cluster.share or storage)
    secrets = [{"name": REGISTRY_LOGIN}] if registry_login else []
    return {
        "job_configuration": {
            "name": "{{ name }}",
            "command": "{{ command }}",
            "namespace": "{{ namespace }}",
            "labels": LABELS,
            "annotations": {},
            "env": _fixed_environment(share),
            "job_manifest": _job(share),
        },
        "variables": variables(cluster, image, secrets),
    }


def pod_share(storage: Storage) -> Storage:
    """Return the share as a pod reaches it: through its claim at ``/share``, or by ``smb://`` with a Secret's password.

    Raises:
        UserError: it is a folder below a checkout, which no pod has.
    """
    if isinstance(storage, SmbStorage):
        login = {"password": {"environment": SHARE_PASSWORD}}
        return SmbStorage.model_validate(storage.model_dump(mode="json", exclude={"password"}) | login)
    if isinstance(storage, MountStorage):
        # What the kernel names as the source is the node's business: the sentinel tells that it is the share.
        return storage.model_copy(update={"path": SHARE, "source": None})
    if not storage.path.is_absolute():
        raise UserError(
            Problem(
                "configs/site.yaml storage.path",
                f"is {storage.path}, a folder of one checkout, which pods cannot reach",
                "name a share of kind smb or mount there, or under cluster.share",
            )
        )
    return DirectoryStorage(path=SHARE)


def _check(training: Resources) -> None:
    if parse_quantity(training.shm) >= parse_quantity(training.memory):
        raise UserError(
            Problem(
                "cluster.training.shm",
                f"is {training.shm}, which leaves nothing of memory {training.memory} that it counts into",
                "set shm lower, or memory higher",
            )
        )


def _fixed_environment(share: Storage) -> dict[str, str]:
    """Variables of every run; none of them is secret."""
    return {
        **QUIET,
        "MLOPS_HOME": str(CODE / ".mlops"),
        "MLOPS_CACHE": str(CACHE),
        "MLOPS_SHARE": share.model_dump_json(exclude_none=True),
        # The worker hands its own settings on, its folder among them.
        "PREFECT_HOME": str(CODE / ".mlops" / "prefect"),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
        "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "reschedule",
    }


def _job(share: Storage) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "labels": LABELS,
            "annotations": {},
            "namespace": "{{ namespace }}",
            "generateName": "{{ name }}-",
        },
        "spec": {
            # Prefect starts the run again, with a Job of its own: two of them would train twice.
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": "{{ ttl_s }}",
            "activeDeadlineSeconds": "{{ deadline_s }}",
            "template": {"metadata": {"labels": LABELS}, "spec": _pod(share)},
        },
    }


def _pod(share: Storage) -> dict[str, Any]:
    claimed = not isinstance(share, SmbStorage)
    mounts = [
        {"name": "cache", "mountPath": str(CACHE)},
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 the pod's shared memory
        *([{"name": "share", "mountPath": str(SHARE)}] if claimed else []),
    ]
    volumes: list[dict[str, Any]] = [
        {"name": "cache", "hostPath": {"path": "{{ cache }}", "type": "DirectoryOrCreate"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "{{ shm }}"}},
        *([{"name": "share", "persistentVolumeClaim": {"claimName": SHARE_CLAIM}}] if claimed else []),
    ]
    amounts = {"cpu": "{{ cpu }}", "memory": "{{ memory }}"}
    return {
        # Prefect's worker demands these two here; the API server drops them, and the Job's own are 1, too.
        "parallelism": 1,
        "completions": 1,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "serviceAccountName": "{{ service_account }}",
        "automountServiceAccountToken": False,
        "priorityClassName": "{{ priority_class }}",
        "imagePullSecrets": "{{ image_pull_secrets }}",
        "nodeSelector": "{{ node_selector }}",
        "tolerations": "{{ tolerations }}",
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": LABELS},
            }
        ],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_cache_owner()],
        "containers": [
            {
                "name": "prefect-job",
                "image": "{{ image }}",
                "imagePullPolicy": "{{ image_pull_policy }}",
                "args": "{{ command }}",
                "workingDir": str(CODE),
                "envFrom": [{"configMapRef": {"name": ENVIRONMENT}}],
                "env": _own_environment(share),
                "resources": {"requests": dict(amounts), "limits": amounts | {"nvidia.com/gpu": "{{ gpus }}"}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }


def _cache_owner() -> dict[str, Any]:
    """Gives the node's folder, which the kubelet makes for root alone, to the group of the runs.

    It is root without any capability: the owner of a folder may give it to a group that he is in.
    """
    return {
        "name": "cache-owner",
        "image": "{{ image }}",
        "imagePullPolicy": "{{ image_pull_policy }}",
        "command": ["sh", "-c", f"chgrp {USER_ID} {CACHE} && chmod 0770 {CACHE}"],
        "resources": {
            "requests": {"cpu": "{{ cpu }}", "memory": "32Mi"},
            "limits": {"cpu": "{{ cpu }}", "memory": "32Mi"},
        },
        "securityContext": {
            "runAsNonRoot": False,
            "runAsUser": 0,
            "runAsGroup": USER_ID,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "cache", "mountPath": str(CACHE)}],
    }


def _own_environment(share: Storage) -> list[dict[str, Any]]:
    """Variables whose values only the cluster knows: logins, and where the run is."""
    secrets = {
        "PREFECT_API_AUTH_STRING": (CREDENTIALS, "prefect-auth"),
        "MLFLOW_TRACKING_USERNAME": (CREDENTIALS, "mlflow-user"),
        "MLFLOW_TRACKING_PASSWORD": (CREDENTIALS, "mlflow-password"),
    }
    if isinstance(share, SmbStorage):
        secrets[SHARE_PASSWORD] = (SHARE_LOGIN, "password")
    fields = {"MLOPS_NODE": "spec.nodeName", "MLOPS_POD": "metadata.name"}
    threads = {"containerName": "prefect-job", "resource": "limits.cpu", "divisor": "1"}
    return [
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
            for name, (secret, key) in secrets.items()
        ),
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()),
        {"name": "OMP_NUM_THREADS", "valueFrom": {"resourceFieldRef": threads}},
    ]
