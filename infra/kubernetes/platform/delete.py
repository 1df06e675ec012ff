"""``delete``: take the platform out of its namespace; its data and passwords stay unless they are to go, too."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from configs.cluster import Cluster
from configs.problems import Problem, UserError
from infra.kubernetes.apply import apply
from infra.kubernetes.client import api_errors_for_people
from infra.kubernetes.manifests import (
    COMPONENT,
    CONTAINER,
    CREDENTIALS,
    MLFLOW,
    OURS,
    POSTGRES,
    SHARE,
    amounts,
    labels,
    manifest,
    shared_name,
)
from infra.kubernetes.objects import discard, find
from infra.kubernetes.platform import mlflow, postgres
from infra.kubernetes.platform.rbac import NODE_EVENTS, NODE_EVENTS_IN, NODES

if TYPE_CHECKING:
    from lightkube import Client

DATA_VOLUMES = (postgres.VOLUME, mlflow.VOLUME)
WIPE = "mlops-wipe"
PODS_LIMIT_S = 240.0
WIPE_LIMIT_S = 180.0

Report = Callable[[str, str, str], None]


def running_jobs(client: Client) -> list[str]:
    """Return the names of the Jobs of runs and gangs that have not ended."""
    from lightkube.resources.batch_v1 import Job

    found = [job.to_dict() for job in client.list(Job, labels={**OURS})]
    return sorted(job["metadata"]["name"] for job in found if job.get("status", {}).get("active"))


@api_errors_for_people()
def delete(client: Client, cluster: Cluster, report: Report, *, data: bool = False) -> None:
    """Delete everything of the platform, runs included, and wait until it is gone.

    Args:
        data: delete the databases, the artifacts and the passwords, too, and the namespace if it was made by us.

    Raises:
        UserError: pods do not end, or the data cannot be deleted.
    """
    for kind in _kinds():
        _delete_all(client, kind, report)
    _wait_for_pods(client)
    _delete_share(client)
    _delete_rights(client, cluster)
    if not data:
        report("data", "kept", "volumes and passwords are still there: `mlops platform apply` goes on with them")
        return
    _wipe(client, cluster, report)
    _delete_data(client, cluster)
    _delete_namespace(client, cluster)
    report("data", "deleted", "")


def _kinds() -> list[Any]:
    """Return what is deleted always, in order: who starts pods first."""
    from lightkube.resources.apps_v1 import Deployment, StatefulSet
    from lightkube.resources.batch_v1 import Job
    from lightkube.resources.core_v1 import ConfigMap, LimitRange, ResourceQuota, Service, ServiceAccount
    from lightkube.resources.networking_v1 import NetworkPolicy
    from lightkube.resources.rbac_authorization_v1 import Role, RoleBinding

    return [
        *(Deployment, Job, StatefulSet, Service, ConfigMap, RoleBinding, Role, ServiceAccount),
        *(NetworkPolicy, ResourceQuota, LimitRange),
    ]


def _delete_all(client: Client, kind: Any, report: Report) -> None:
    for item in client.list(kind, labels={**OURS}):
        name = str(item.metadata.name)
        report("objects", "deleting", f"{kind.__name__} {name}")
        discard(client, kind, name)


def _wait_for_pods(client: Client) -> None:
    from lightkube.resources.core_v1 import Pod

    deadline = time.monotonic() + PODS_LIMIT_S
    while left := [pod.metadata.name for pod in client.list(Pod, labels={**OURS}) if pod.metadata]:
        if time.monotonic() > deadline:
            names = ", ".join(str(name) for name in left)
            raise UserError(Problem("pods", f"do not end: {names}", "are their nodes up? Then delete again"))
        time.sleep(1)


def _delete_share(client: Client) -> None:
    """Delete volume and claim of the share, which only lead to it."""
    from lightkube.resources.core_v1 import PersistentVolume, PersistentVolumeClaim

    discard(client, PersistentVolumeClaim, SHARE)
    discard(client, PersistentVolume, shared_name(client.namespace, "share"))


def _wipe(client: Client, cluster: Cluster, report: Report) -> None:
    """Empty volumes that are folders of a node: nobody else does, and old data does not fit new passwords."""
    from lightkube.resources.batch_v1 import Job
    from lightkube.resources.core_v1 import PersistentVolume, PersistentVolumeClaim

    volumes = {str(one.metadata.name) for one in client.list(PersistentVolume) if one.metadata and _is_folder(one)}
    claims = [one for one in client.list(PersistentVolumeClaim) if one.metadata and one.metadata.name in DATA_VOLUMES]
    folders = [str(one.metadata.name) for one in claims if one.metadata and one.spec and one.spec.volumeName in volumes]
    if not folders:
        return
    report("data", "deleting", "the folders of the node")
    apply(client, [_wiper(cluster, folders)])
    deadline = time.monotonic() + WIPE_LIMIT_S
    while True:
        status = client.get(Job, WIPE).to_dict().get("status", {})
        if status.get("succeeded"):
            break
        if status.get("failed") or time.monotonic() > deadline:
            raise UserError(
                Problem("data", "could not be deleted from its node", f"kubectl -n {client.namespace} logs job/{WIPE}")
            )
        time.sleep(1)
    discard(client, Job, WIPE)
    _wait_for_pods(client)


def _is_folder(volume: Any) -> bool:
    return bool(volume.to_dict()["spec"].get("hostPath"))


def _wiper(cluster: Cluster, claims: list[str]) -> dict[str, Any]:
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": "wipe",
                "image": cluster.images.postgres,
                **CONTAINER,
                "command": ["find", *(f"/data/{name}" for name in claims), "-mindepth", "1", "-delete"],
                "resources": amounts("10m", "32Mi", "500m", "128Mi"),
                # Root without the right to look into folders of others could not empty them.
                "securityContext": {
                    "runAsUser": 0,
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "seccompProfile": {"type": "RuntimeDefault"},
                    "capabilities": {"drop": ["ALL"], "add": ["DAC_OVERRIDE", "FOWNER"]},
                },
                "volumeMounts": [{"name": name, "mountPath": f"/data/{name}"} for name in claims],
            }
        ],
        "volumes": [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims],
    }
    template = {"metadata": {"labels": labels("wipe")}, "spec": pod}
    spec = {"backoffLimit": 0, "activeDeadlineSeconds": int(WIPE_LIMIT_S), "template": template}
    return manifest("batch/v1", "Job", WIPE, "wipe", namespace=cluster.namespace, spec=spec)


def _delete_data(client: Client, cluster: Cluster) -> None:
    from lightkube.resources.core_v1 import PersistentVolume, PersistentVolumeClaim, Secret

    for name in DATA_VOLUMES:
        discard(client, PersistentVolumeClaim, name)
    for component in (POSTGRES, MLFLOW):
        discard(client, PersistentVolume, shared_name(cluster.namespace, component))
    for item in client.list(Secret, labels={**OURS}):
        discard(client, Secret, str(item.metadata.name if item.metadata else CREDENTIALS))


def _delete_rights(client: Client, cluster: Cluster) -> None:
    """Delete what the platform may do outside its namespace."""
    from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding, Role, RoleBinding

    nodes, events = shared_name(cluster.namespace, NODES), shared_name(cluster.namespace, NODE_EVENTS)
    discard(client, ClusterRoleBinding, nodes)
    discard(client, ClusterRole, nodes)
    discard(client, RoleBinding, events, namespace=NODE_EVENTS_IN)
    discard(client, Role, events, namespace=NODE_EVENTS_IN)


def _delete_namespace(client: Client, cluster: Cluster) -> None:
    """Delete the namespace if we have made it, and with the last of ours what all of them shared."""
    from lightkube.resources.core_v1 import Namespace
    from lightkube.resources.scheduling_v1 import PriorityClass

    ours = [str(item.metadata.name) for item in client.list(Namespace, labels={**OURS}) if item.metadata]
    if cluster.namespace in ours:
        discard(client, Namespace, cluster.namespace)
        deadline = time.monotonic() + PODS_LIMIT_S
        while time.monotonic() < deadline and find(client, Namespace, cluster.namespace) is not None:
            time.sleep(1)
    if set(ours) <= {cluster.namespace}:
        for item in client.list(PriorityClass, labels={**OURS, COMPONENT: "priority"}):
            discard(client, PriorityClass, str(item.metadata.name if item.metadata else ""))
