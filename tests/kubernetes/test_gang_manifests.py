"""The objects of a gang: whole, as Kubernetes' schemas want them, and with what only a reader would notice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import kubernetes_validate
import pytest
from fake_api import FakeCluster, Fault
from fake_store import RefusedError

from configs.cluster import Cluster
from configs.ddp import Kueue, Volcano
from configs.problems import UserError
from configs.secret import PasswordReference
from configs.storage import DirectoryStorage, MountStorage, SmbStorage
from infra.ddp.command import SHUTDOWN_S
from infra.ddp.launch import Dataset, Gang
from infra.guard import GRACE_S as GUARD_S
from infra.kubernetes.check.manifests import check
from infra.kubernetes.check.names import Outside
from infra.kubernetes.client import connect
from infra.kubernetes.gang import manifests
from infra.kubernetes.gang.launch import KubernetesLauncher
from infra.kubernetes.gang.pod import GRACE_S, Space
from infra.kubernetes.gang.space import open_space, space_for, space_like
from infra.kubernetes.platform import share
from infra.kubernetes.platform.wanted import Wanted

LABELS = {
    "app.kubernetes.io/part-of": "mlops",
    "app.kubernetes.io/component": "gang",
    "app.kubernetes.io/managed-by": "mlops",
    "mlops/gang": "lin-1",
    "mlops/flow-run": "run-1",
}
SHARE: dict[str, Any] = {
    "share_volumes": ({"name": "share", "persistentVolumeClaim": {"claimName": "mlops-share"}},),
    "share_mounts": ({"name": "share", "mountPath": "/share"},),
}


@pytest.fixture
def gang() -> Gang:
    return Gang(
        name="lin-1",
        flow_run_id="run-1",
        program=("ml/ddp/linear.py", "--steps", "9"),
        least=2,
        most=4,
        processes=2,
        cpu=1.5,
        memory=3 << 30,
        gpus=2,
        backend="nccl",
        checkpoints=PurePosixPath("checkpoints/lin-abc"),
        max_restarts=3,
        rendezvous_s=300,
        below_least_s=600,
        environment={"LEVEL": "1"},
        data=Dataset("digits.dvc", "digits", "d1.dir"),
    )


@pytest.fixture
def space() -> Space:
    return Space(
        "ml",
        "registry.example/mlops@sha256:1",
        PurePosixPath("/var/lib/mlops/cache"),
        1 << 30,
        3600,
        PurePosixPath("/share"),
        **SHARE,
    )


def test_the_job_whole(gang: Gang, space: Space) -> None:
    not_root = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    peers = "lin-1-{}.lin-1.ml.svc.cluster.local"
    assert manifests.job(gang, space) == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "lin-1", "namespace": "ml", "labels": LABELS},
        "spec": {
            "completionMode": "Indexed",
            "completions": 4,
            "parallelism": 4,
            "backoffLimit": 3,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": "worker", "operator": "NotIn", "values": [75, 137, 143, 255]},
                    },
                ]
            },
            "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
            "ttlSecondsAfterFinished": 3600,
            "template": {
                "metadata": {"labels": LABELS},
                "spec": {
                    "subdomain": "lin-1",
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 30,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 10001,
                        "runAsGroup": 10001,
                        "fsGroup": 10001,
                        "fsGroupChangePolicy": "OnRootMismatch",
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "tolerations": [
                        {
                            "key": f"node.kubernetes.io/{key}",
                            "operator": "Exists",
                            "effect": "NoExecute",
                            "tolerationSeconds": 30,
                        }
                        for key in ("not-ready", "unreachable")
                    ],
                    "topologySpreadConstraints": [
                        {
                            "maxSkew": 1,
                            "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": {"mlops/gang": "lin-1"}},
                        }
                    ],
                    "initContainers": [
                        {
                            "name": "cache-owner",
                            "image": "registry.example/mlops@sha256:1",
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["sh", "-c", "chgrp 10001 /cache && chmod 0770 /cache"],
                            "resources": {
                                "requests": {"cpu": "10m", "memory": "32Mi"},
                                "limits": {"cpu": "1", "memory": "32Mi"},
                            },
                            "securityContext": {
                                "runAsNonRoot": False,
                                "runAsUser": 0,
                                "runAsGroup": 10001,
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
                        }
                    ],
                    "containers": [
                        {
                            "name": "worker",
                            "image": "registry.example/mlops@sha256:1",
                            "imagePullPolicy": "IfNotPresent",
                            "workingDir": "/opt/mlops",
                            "command": ["python", "-m", "infra.ddp.agent"],
                            "args": [
                                f"--peers={peers}",
                                "--index=$(JOB_COMPLETION_INDEX)",
                                "--most=4",
                                "--port=29500",
                                "--restarts=3",
                                "--wait-s=900",
                                "--log-dir=/opt/mlops/.mlops/ranks",
                                "--data=digits.dvc",
                                "--log=/share/gangs/lin-1/logs/worker-$(JOB_COMPLETION_INDEX).$(POD).log",
                                "--",
                                "--nnodes=2:4",
                                "--nproc-per-node=2",
                                "--rdzv-backend=c10d",
                                f"--rdzv-endpoint={peers.format(0)}:29500",
                                "--rdzv-id=lin-1",
                                "--rdzv-conf=join_timeout=900",
                                "--max-restarts=3",
                                "--monitor-interval=0.5",
                                "--shutdown-timeout=15",
                                "--log-dir=/opt/mlops/.mlops/ranks",
                                "--redirects=3",
                                "--tee=3",
                                "ml/ddp/linear.py",
                                "--steps",
                                "9",
                            ],
                            "env": [
                                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                                {"name": "HOME", "value": "/opt/mlops/.mlops"},
                                {"name": "MLOPS_HOME", "value": "/opt/mlops/.mlops"},
                                {"name": "MLOPS_CACHE", "value": "/cache"},
                                {"name": "LEVEL", "value": "1"},
                                {"name": "OMP_NUM_THREADS", "value": "1"},
                                {"name": "PYTHONUNBUFFERED", "value": "1"},
                                {"name": "MLOPS_BACKEND", "value": "nccl"},
                                {"name": "MLOPS_CHECKPOINTS", "value": "/share/checkpoints/lin-abc"},
                                {"name": "MLOPS_OUTPUT", "value": "/share/gangs/lin-1/output"},
                                {"name": "MLOPS_EVENTS", "value": "/share/gangs/lin-1/events.jsonl"},
                                {"name": "MLOPS_DATA", "value": "/opt/mlops/digits"},
                            ],
                            "ports": [{"name": "rendezvous", "containerPort": 29500, "protocol": "TCP"}],
                            "resources": {
                                "requests": {"cpu": "1500m", "memory": "3072Mi", "nvidia.com/gpu": "2"},
                                "limits": {"cpu": "1500m", "memory": "3072Mi", "nvidia.com/gpu": "2"},
                            },
                            "securityContext": not_root,
                            "volumeMounts": [
                                {"name": "shm", "mountPath": "/dev/shm"},
                                {"name": "home", "mountPath": "/opt/mlops/.mlops"},
                                {"name": "cache", "mountPath": "/cache"},
                                {"name": "share", "mountPath": "/share"},
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1024Mi"}},
                        {"name": "home", "emptyDir": {}},
                        {
                            "name": "cache",
                            "hostPath": {"path": "/var/lib/mlops/cache", "type": "DirectoryOrCreate"},
                        },
                        {"name": "share", "persistentVolumeClaim": {"claimName": "mlops-share"}},
                    ],
                },
            },
        },
    }


def test_the_service_whole(gang: Gang, space: Space) -> None:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "lin-1", "uid": "u-1"}
    assert manifests.service(gang, space, "u-1") == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "lin-1",
            "namespace": "ml",
            "labels": LABELS,
            "ownerReferences": [owner | {"controller": False, "blockOwnerDeletion": False}],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"mlops/gang": "lin-1"},
            "ports": [{"name": "rendezvous", "port": 29500, "protocol": "TCP", "targetPort": 29500}],
        },
    }


def test_volcano_places_the_least_number_together(gang: Gang, space: Space) -> None:
    gang = replace(gang, scheduler=Volcano(kind="volcano", queue="team"))
    group = manifests.pod_group(gang, replace(space, priority_class="mlops-training"), "u-1", "team")
    assert group["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    assert group["spec"] == {
        "minMember": 2,
        "minResources": {"cpu": "3000m", "memory": "6144Mi", "nvidia.com/gpu": "4"},
        "queue": "team",
        "priorityClassName": "mlops-training",
    }
    template = manifests.job(gang, space)["spec"]["template"]
    assert template["spec"]["schedulerName"] == "volcano"
    assert template["metadata"]["annotations"] == {"scheduling.k8s.io/group-name": "lin-1"}


def test_kueue_lets_the_job_go(gang: Gang, space: Space) -> None:
    job = manifests.job(replace(gang, scheduler=Kueue(kind="kueue", queue="team")), space)
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"] == {**LABELS, "kueue.x-k8s.io/queue-name": "team"}
    assert job["spec"]["template"]["metadata"]["labels"] == LABELS


def test_a_scheduler_or_a_queue_that_is_not_there_is_told(
    gang: Gang, space: Space, cluster: FakeCluster, tmp_path: Path
) -> None:
    launcher = KubernetesLauncher(connect(Cluster(kubeconfig=cluster.kubeconfig())), space, tmp_path, None)
    queued = replace(gang, scheduler=Kueue(kind="kueue", queue="team"))
    with pytest.raises(UserError, match=r"scheduler\.kind: the cluster has no kueue"):
        launcher.launch(queued)
    with pytest.raises(UserError, match=r"scheduler\.kind: the cluster has no volcano"):
        launcher.launch(replace(gang, scheduler=Volcano(kind="volcano", queue="team")))
    missing = RefusedError(404, "NotFound", 'localqueues.kueue.x-k8s.io "team" not found')
    # A Kueue that does not serve the newest version of its API answers in the one that it does.
    cluster.faults.append(Fault("GET", "/v1beta1/.*/localqueues/team$", missing))
    with pytest.raises(UserError, match=r"scheduler\.queue: namespace ml has no LocalQueue team"):
        launcher.launch(queued)


@pytest.mark.parametrize("version", ["1.31", "1.33"])
def test_kubernetes_schemas_take_them(gang: Gang, space: Space, version: str) -> None:
    everything = replace(
        space,
        pull_secrets=("mlops-registry",),
        priority_class="mlops-training",
        deadline_s=600,
        node_selector={"gpu": "yes"},
        tolerations=({"key": "gpu", "operator": "Exists"},),
    )
    folder = DirectoryStorage(kind="directory", path="/srv/share")
    claim = share.manifests(Wanted(Cluster(namespace="ml"), space.image, share=folder))
    outside = Outside(
        {"mlops-share": ("password",), "mlops-registry": (".dockerconfigjson",)}, {"PriorityClass": ("mlops-training",)}
    )
    for variant in (space, everything):
        made = [manifests.job(gang, variant), manifests.service(gang, variant, "u-1")]
        for manifest in made:
            kubernetes_validate.validate(manifest, version, strict=True)
        assert [str(problem) for problem in check([*made, *claim], outside)] == []


def test_the_graces_fit_into_each_other() -> None:
    assert SHUTDOWN_S < GUARD_S < GRACE_S


def test_shared_memory_leaves_half_to_the_processes(gang: Gang, space: Space) -> None:
    pod = manifests.job(replace(gang, memory=1 << 30), space)["spec"]["template"]["spec"]
    assert pod["volumes"][0]["emptyDir"]["sizeLimit"] == "512Mi"


def test_a_machine_gives_what_the_platform_has() -> None:
    mount = MountStorage(kind="mount", path="/mnt/share", folder="dvc", sentinel="s")
    space = space_for(Wanted(Cluster(), "registry.example/mlops:1", share=mount, pull_secrets=("mlops-registry",)))
    assert space.kept == PurePosixPath("/share/dvc")
    assert [volume["name"] for volume in space.share_volumes] == ["share", "share-sentinel"]
    assert space.pull_secrets == ("mlops-registry",)


@pytest.mark.parametrize("share", [None, "smb"])
def test_a_share_that_pods_do_not_mount_is_refused(share: str | None) -> None:
    smb = SmbStorage(kind="smb", url="smb://a@storage/s/dvc", password=PasswordReference(environment="P"))
    with pytest.raises(UserError, match="workers need the share as a folder"):
        space_for(Wanted(Cluster(), "registry.example/mlops:1", share=smb if share else None))


def test_a_share_that_the_cluster_mounts_for_pods() -> None:
    smb = SmbStorage(kind="smb", url="smb://a@storage/s/dvc", password=PasswordReference(environment="P"))
    space = space_for(Wanted(Cluster(), "registry.example/mlops:1", share=smb, csi_smb=True))
    assert space.kept == PurePosixPath("/share/dvc")


def test_a_pod_gives_what_it_has_itself() -> None:
    volumes = [{"name": "share", "persistentVolumeClaim": {"claimName": "mlops-share"}}, {"name": "token"}]
    pod = {
        "spec": {
            "imagePullSecrets": [{"name": "mlops-registry"}],
            "volumes": volumes,
            "containers": [
                {
                    "image": "registry.example/mlops@sha256:7",
                    "volumeMounts": [{"name": "share", "mountPath": "/share"}, {"name": "token", "mountPath": "/t"}],
                }
            ],
        }
    }
    space = space_like(pod, Cluster(namespace="ml"), '{"kind": "directory", "path": "/share"}', "cluster.example")
    assert (space.image, space.namespace, space.domain) == ("registry.example/mlops@sha256:7", "ml", "cluster.example")
    assert space.pull_secrets == ("mlops-registry",)
    assert space.share_volumes == (volumes[0],)
    assert space.kept == PurePosixPath("/share")


def test_a_pod_without_a_share_says_so_and_looks_for_no_other_way(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"containers": [{"name": "prefect-job", "image": "registry.example/mlops@sha256:7"}]}
    cluster.ask(lambda store, node: store.create("pods", "mlops", {"metadata": {"name": "own-1"}, "spec": spec}))
    (tmp_path / "configs").mkdir()
    site = {"storage": {"kind": "directory"}, "cluster": {"kubeconfig": str(cluster.kubeconfig())}}
    (tmp_path / "configs" / "site.yaml").write_text(json.dumps(site))
    monkeypatch.setenv("MLOPS_POD", "own-1")
    monkeypatch.delenv("MLOPS_SHARE", raising=False)
    with pytest.raises(UserError, match="workers need the share as a folder"):
        open_space(tmp_path, tmp_path / ".mlops")
