"""The work pool's template, as Prefect's own worker renders it: whole Jobs, against the published schemas."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import kubernetes_validate
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from configs.cluster import Cluster, Resources, Toleration
from configs.problems import UserError
from configs.secret import PasswordReference
from configs.storage import DirectoryStorage, SmbStorage
from infra.kubernetes.platform.wanted import Wanted
from infra.kubernetes.pool import base_job_template

IMAGE = "registry.example.org/mlops@sha256:" + "a" * 64
NOWHERE = "http://127.0.0.1:9/api"
"""Rendering asks no server: the template names no block and no variable of one."""
RUN = FlowRun(id=UUID(int=1), flow_id=UUID(int=2), name="wise-owl")
SMB = SmbStorage(url="smb://alice@storage/sambashare/dvc", password=PasswordReference(environment="X"))
LABELS = {
    "app.kubernetes.io/part-of": "mlops",
    "app.kubernetes.io/component": "run",
    "app.kubernetes.io/managed-by": "mlops",
}


def rendered(wanted: Wanted, **variables: Any) -> dict[str, Any]:
    """Return the Job of a run with these job variables."""
    template = base_job_template(wanted)
    make = KubernetesWorkerJobConfiguration.from_template_and_values
    configuration = asyncio.run(make(template, variables, client=PrefectClient(NOWHERE)))
    configuration.prepare_for_flow_run(RUN)
    return dict(configuration.job_manifest)


def validated(job: dict[str, Any]) -> dict[str, Any]:
    """Return the pod of a Job that the schemas of several versions take."""
    pod = dict(job["spec"]["template"]["spec"])
    for name in ("parallelism", "completions"):  # Prefect's worker demands them here, the API server drops them
        pod.pop(name)
    template = {**job["spec"]["template"], "spec": pod}
    for version in ("1.29", "1.33"):
        kubernetes_validate.validate({**job, "spec": {**job["spec"], "template": template}}, version, strict=True)
    return pod


def test_the_whole_pod_of_a_run() -> None:
    job = rendered(Wanted(Cluster(), IMAGE, share=SMB, pull_secrets=("mlops-registry",)))
    pod = validated(job)
    (container,) = pod.pop("containers")
    own = {item["name"]: item for item in container.pop("env")}
    assert job["metadata"]["namespace"] == "mlops"
    assert job["metadata"]["generateName"].startswith("wise-owl")
    assert job["metadata"]["labels"].items() >= (LABELS | {"prefect.io/flow-run-id": str(RUN.id)}).items()
    assert job["spec"]["template"]["metadata"]["labels"].items() >= job["metadata"]["labels"].items()
    assert {key: value for key, value in job["spec"].items() if key != "template"} == {
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": 3600,
    }
    assert container == {
        "name": "prefect-job",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": ["python", "-m", "infra.kubernetes.execute"],
        "workingDir": "/opt/mlops",
        "envFrom": [{"configMapRef": {"name": "mlops-environment"}}],
        "resources": {"requests": {"cpu": "2", "memory": "6Gi"}, "limits": {"cpu": "2", "memory": "6Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}, {"name": "shm", "mountPath": "/dev/shm"}],
    }
    assert own["MLOPS_CACHE"]["value"] == "/cache"
    assert own["PREFECT_HOME"]["value"] == "/opt/mlops/.mlops/prefect"
    assert own["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"]["value"] == "reschedule"
    assert own["MLOPS_NODE"]["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    for name in ("MLOPS_CORES", "OMP_NUM_THREADS"):
        assert own[name]["valueFrom"]["resourceFieldRef"]["resource"] == "limits.cpu"
    for name, secret in (("PREFECT_API_AUTH_STRING", "mlops-credentials"), ("MLOPS_SHARE_PASSWORD", "mlops-share")):
        assert own[name]["valueFrom"]["secretKeyRef"]["name"] == secret
    assert pod == {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 60,
        "serviceAccountName": "mlops-run",
        "priorityClassName": "mlops-training",
        "imagePullSecrets": [{"name": "mlops-registry"}],
        "nodeSelector": {},
        "tolerations": [
            {
                "key": f"node.kubernetes.io/{what}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 60,
            }
            for what in ("not-ready", "unreachable")
        ],
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
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": pod["initContainers"],
        "volumes": [
            {"name": "cache", "hostPath": {"path": "/var/lib/mlops/cache", "type": "DirectoryOrCreate"}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        ],
    }


def test_what_gives_the_cache_to_the_runs_has_no_right_but_that() -> None:
    (init,) = validated(rendered(Wanted(Cluster(), IMAGE, share=SMB)))["initContainers"]
    assert init["securityContext"] == {
        "runAsNonRoot": False,
        "runAsUser": 0,
        "runAsGroup": 10001,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [mount["mountPath"] for mount in init["volumeMounts"]] == ["/cache"]


def test_the_site_s_and_a_run_s_own_wishes() -> None:
    resources = Resources(
        gpus=2,
        deadline_s=7200,
        node_selector={"gpu": "yes"},
        tolerations=(Toleration(key="gpu", operator="Exists"),),
    )
    wanted = Wanted(Cluster(training=resources), IMAGE, share=DirectoryStorage(path=Path("/srv/share")))
    pod = validated(rendered(wanted, memory="12Gi", gpus=4, env={"TOPIC": "night"}, priority_class="high"))
    (container,) = pod["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "2", "memory": "12Gi"},
        "limits": {"cpu": "2", "memory": "12Gi", "nvidia.com/gpu": 4},
    }
    assert {"name": "TOPIC", "value": "night"} in container["env"]
    assert "MLOPS_CACHE" in {item["name"] for item in container["env"]}
    assert {"name": "share", "persistentVolumeClaim": {"claimName": "mlops-share"}} in pod["volumes"]
    assert pod["nodeSelector"] == {"gpu": "yes"}
    assert pod["tolerations"][0] == {"key": "gpu", "operator": "Exists"}
    assert pod["priorityClassName"] == "high"
    assert rendered(wanted)["spec"]["activeDeadlineSeconds"] == 7200


def test_every_variable_of_the_template_is_in_the_form_and_has_a_default_or_may_be_left_out() -> None:
    from prefect.utilities.templating import find_placeholders

    template = base_job_template(Wanted(Cluster(), IMAGE, share=SMB))
    properties = template["variables"]["properties"]
    used = {placeholder.name for placeholder in find_placeholders(template["job_configuration"])}
    assert used <= set(properties)
    assert set(properties) - used == {"env"}, "Prefect merges env by itself"
    assert all("default" in field for field in properties.values())
    assert all(field.get("description") or name == "image_pull_policy" for name, field in properties.items())


def test_shared_memory_that_leaves_no_memory_is_refused() -> None:
    cluster = Cluster(training=Resources(memory="1Gi", shm="1024Mi"))
    with pytest.raises(UserError, match=r"cluster\.training\.shm: is 1024Mi, which leaves nothing of memory 1Gi"):
        base_job_template(Wanted(cluster, IMAGE, share=SMB))
