"""The platform's manifests: whole objects, the published schemas of several versions, and our own checks."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from configs.cluster import Cluster, Quota, State
from configs.secret import PasswordReference
from configs.storage import DirectoryStorage, MountStorage, SmbStorage
from infra.kubernetes.check.manifests import check
from infra.kubernetes.check.names import Outside
from infra.kubernetes.platform.plan import SECRETS, namespace, platform_manifests
from infra.kubernetes.platform.share import as_seen_by_pods, share_volumes
from infra.kubernetes.platform.wanted import Wanted

IMAGE = "registry.example/mlops@sha256:" + "ab" * 32
SMB = SmbStorage(
    kind="smb",
    url="smb://alice@storage.example:4450/sambashare/dvc",
    encrypt=True,
    password=PasswordReference(environment="SHARE_PASSWORD"),
)
MOUNT = MountStorage(kind="mount", path=Path("/mnt/sambashare"), sentinel="sambashare")
PLATFORMS = {
    "storage class": Wanted(Cluster(state=State(storage_class="fast")), IMAGE),
    "default class and quota": Wanted(Cluster(quota=Quota(cpu="8", memory="32Gi", gpus=2, pods=9)), IMAGE, "c" * 40),
    "folder of a node": Wanted(Cluster(state=State(host_path="/srv/mlops", node="node1")), IMAGE, share=MOUNT),
    "smb without a driver": Wanted(Cluster(namespace="team"), IMAGE, share=SMB, pull_secrets=("mlops-registry",)),
    "smb with the driver": Wanted(Cluster(), IMAGE, share=SMB, csi_smb=True),
    "folder of all nodes": Wanted(Cluster(), IMAGE, share=DirectoryStorage(path=Path("/srv/share"))),
}


def _one(wanted: Wanted, kind: str, name: str) -> dict[str, Any]:
    found = [item for item in platform_manifests(wanted) if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("version", ["1.27", "1.30", "1.33", "1.36"])
def test_manifests_fit_the_published_schemas(version: str) -> None:
    found = [item for wanted in PLATFORMS.values() for item in [namespace(wanted), *platform_manifests(wanted)]]
    different = {json.dumps(item, sort_keys=True) for item in found}
    for text in different:
        kubernetes_validate.validate(json.loads(text), version, strict=True)


@pytest.mark.parametrize("name", PLATFORMS)
def test_manifests_fit_each_other(name: str) -> None:
    assert check(platform_manifests(PLATFORMS[name]), Outside(secrets=SECRETS)) == []


def _labels(component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/part-of": "mlops",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": "mlops",
    }


def test_postgres_on_a_folder_of_a_node() -> None:
    wanted = PLATFORMS["folder of a node"]
    assert _one(wanted, "PersistentVolume", "mlops-postgres") == {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "mlops-postgres", "labels": _labels("postgres")},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": "mlops",
                "name": "mlops-postgres",
            },
            "hostPath": {"path": "/srv/mlops/postgres", "type": "DirectoryOrCreate"},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"]}]}
                    ]
                }
            },
        },
    }
    safe = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    ready = {"exec": {"command": ["pg_isready", "--quiet", "--host=127.0.0.1", "--username=postgres"]}}
    image = "docker.io/library/postgres:17.6-bookworm"
    password = {"secretKeyRef": {"name": "mlops-credentials", "key": "prefect-database-password"}}
    other = {"secretKeyRef": {"name": "mlops-credentials", "key": "mlflow-database-password"}}
    assert _one(wanted, "StatefulSet", "postgres") == {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "postgres", "labels": _labels("postgres"), "namespace": "mlops"},
        "spec": {
            "replicas": 1,
            "serviceName": "postgres",
            "selector": {"matchLabels": _labels("postgres")},
            "template": {
                "metadata": {"labels": _labels("postgres")},
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "priorityClassName": "mlops-platform",
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 999,
                        "runAsGroup": 999,
                        "fsGroup": 999,
                        "fsGroupChangePolicy": "OnRootMismatch",
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "terminationGracePeriodSeconds": 120,
                    "initContainers": [
                        {
                            "name": "own-folder",
                            "image": image,
                            "imagePullPolicy": "IfNotPresent",
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "command": ["chown", "999:999", "/var/lib/postgresql/data"],
                            "resources": {
                                "requests": {"cpu": "10m", "memory": "16Mi"},
                                "limits": {"cpu": "100m", "memory": "64Mi"},
                            },
                            "securityContext": {
                                "runAsNonRoot": False,
                                "runAsUser": 0,
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
                            },
                            "volumeMounts": [{"name": "data", "mountPath": "/var/lib/postgresql/data"}],
                        }
                    ],
                    "containers": [
                        {
                            "name": "postgres",
                            "image": image,
                            "imagePullPolicy": "IfNotPresent",
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "env": [
                                {"name": "PGDATA", "value": "/var/lib/postgresql/data/pgdata"},
                                {"name": "POSTGRES_PASSWORD_FILE", "value": "/run/secrets/postgres/password"},
                                {"name": "PREFECT_PASSWORD", "valueFrom": password},
                                {"name": "MLFLOW_PASSWORD", "valueFrom": other},
                            ],
                            "ports": [{"name": "postgres", "containerPort": 5432, "protocol": "TCP"}],
                            "startupProbe": {**ready, "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 300},
                            "livenessProbe": {
                                **ready,
                                "periodSeconds": 20,
                                "timeoutSeconds": 20,
                                "failureThreshold": 9,
                            },
                            "readinessProbe": {**ready, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3},
                            "resources": {
                                "requests": {"cpu": "200m", "memory": "256Mi"},
                                "limits": {"cpu": "2", "memory": "1Gi"},
                            },
                            "securityContext": safe,
                            "volumeMounts": [
                                {"name": "data", "mountPath": "/var/lib/postgresql/data"},
                                {"name": "socket", "mountPath": "/var/run/postgresql"},
                                {"name": "tmp", "mountPath": "/tmp"},
                                {"name": "memory", "mountPath": "/dev/shm"},
                                {"name": "password", "mountPath": "/run/secrets/postgres", "readOnly": True},
                                {"name": "scripts", "mountPath": "/docker-entrypoint-initdb.d", "readOnly": True},
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "data", "persistentVolumeClaim": {"claimName": "mlops-postgres"}},
                        {"name": "socket", "emptyDir": {"sizeLimit": "16Mi"}},
                        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
                        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
                        {
                            "name": "password",
                            "secret": {
                                "secretName": "mlops-credentials",
                                "items": [{"key": "postgres-password", "path": "password"}],
                                "defaultMode": 0o440,
                            },
                        },
                        {"name": "scripts", "configMap": {"name": "postgres-databases", "defaultMode": 0o555}},
                    ],
                },
            },
        },
    }


def test_claims_of_a_storage_class_and_of_the_default_one() -> None:
    expected = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "mlops-artifacts", "labels": _labels("mlflow"), "namespace": "mlops"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "50Gi"}},
            "storageClassName": "fast",
        },
    }
    assert _one(PLATFORMS["storage class"], "PersistentVolumeClaim", "mlops-artifacts") == expected
    del expected["spec"]["storageClassName"]
    assert _one(PLATFORMS["folder of all nodes"], "PersistentVolumeClaim", "mlops-artifacts") == expected
    kinds = {item["kind"] for item in platform_manifests(PLATFORMS["storage class"])}
    assert "PersistentVolume" not in kinds


def test_quotas_leave_the_platform_alone() -> None:
    wanted = PLATFORMS["default class and quota"]
    classes = ["mlops-urgent", "mlops-training", "mlops-background"]
    assert _one(wanted, "ResourceQuota", "mlops-runs")["spec"] == {
        "hard": {"requests.cpu": "8", "requests.memory": "32Gi", "pods": "9"},
        "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": classes}]},
    }
    assert _one(wanted, "ResourceQuota", "mlops-gpus")["spec"] == {"hard": {"requests.nvidia.com/gpu": "2"}}
    annotations = _one(wanted, "Deployment", "prefect")["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"mlops/commit": "c" * 40}


def test_the_share_as_nodes_mount_it() -> None:
    wanted = PLATFORMS["folder of a node"]
    assert _one(wanted, "PersistentVolume", "mlops-share")["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "",
        "capacity": {"storage": "1Gi"},
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": "mlops",
            "name": "mlops-share",
        },
        "hostPath": {"path": "/mnt/sambashare", "type": "Directory"},
    }
    # Without the sentinel the node does not start the pod.
    assert share_volumes(wanted.share, csi_smb=False) == (
        [
            {"name": "share", "persistentVolumeClaim": {"claimName": "mlops-share"}},
            {"name": "share-sentinel", "hostPath": {"path": "/mnt/sambashare/.mlops-share", "type": "File"}},
        ],
        [
            {"name": "share", "mountPath": "/share", "mountPropagation": "HostToContainer"},
            {"name": "share-sentinel", "mountPath": "/run/mlops/share-sentinel", "readOnly": True},
        ],
    )
    told = json.loads(_one(wanted, "ConfigMap", "mlops-environment")["data"]["MLOPS_SHARE"])
    assert told == {"kind": "mount", "path": "/share", "folder": "dvc", "sentinel": "sambashare"}


def test_the_share_through_the_csi_driver() -> None:
    wanted = PLATFORMS["smb with the driver"]
    spec = _one(wanted, "PersistentVolume", "mlops-share")["spec"]
    assert spec["csi"] == {
        "driver": "smb.csi.k8s.io",
        "volumeHandle": "storage.example/sambashare#mlops",
        "volumeAttributes": {"source": "//storage.example/sambashare"},
        "nodeStageSecretRef": {"name": "mlops-share", "namespace": "mlops"},
    }
    assert {"vers=3.1.1", "seal", "port=4450", "uid=10001", "gid=10001"} <= set(spec["mountOptions"])
    seen = as_seen_by_pods(wanted)
    assert isinstance(seen, DirectoryStorage)
    assert str(seen.path) == "/share/dvc"


def test_the_share_without_a_mount_takes_its_password_from_the_secret() -> None:
    wanted = PLATFORMS["smb without a driver"]
    assert not [item for item in platform_manifests(wanted) if item["metadata"]["name"].endswith("share")]
    assert share_volumes(wanted.share, csi_smb=False) == ([], [])
    told = json.loads(_one(wanted, "ConfigMap", "mlops-environment")["data"]["MLOPS_SHARE"])
    assert told["password"] == {"environment": "MLOPS_SHARE_PASSWORD"}
    environment = _one(wanted, "Deployment", "worker")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {
        "name": "MLOPS_SHARE_PASSWORD",
        "valueFrom": {"secretKeyRef": {"name": "mlops-share", "key": "password", "optional": True}},
    } in environment


def test_rights_are_the_least() -> None:
    wanted = PLATFORMS["storage class"]
    rules, gangs = (
        {item["resources"][0]: item["verbs"] for item in _one(wanted, "Role", name)["rules"]}
        for name in ("mlops-worker", "mlops-run")
    )
    assert rules["jobs"] == ["create", "get", "list", "watch", "delete"]
    assert rules["pods"] == ["get", "list", "watch"]
    assert rules["pods/log"] == ["get"]
    # Before a gang is launched, its queue is looked for (Kueue), or whether there are groups of pods (Volcano).
    assert gangs["localqueues"] == ["get"]
    assert gangs["workloads"] == rules["workloads"] == ["list"]
    assert gangs["podgroups"] == ["create", "get", "list", "patch", "delete"]
    for manifest in platform_manifests(wanted):
        # Outside of the namespace, and at nodes, only the worker looks.
        outside = manifest["kind"] == "ClusterRoleBinding" or manifest["metadata"].get("namespace") == "default"
        if outside and "subjects" in manifest:
            assert [subject["name"] for subject in manifest["subjects"]] == ["mlops-worker"]
        for rule in manifest.get("rules", ()):
            assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"])
            assert not {"secrets", "pods/exec", "roles", "serviceaccounts/token"} & set(rule["resources"])
    for name in ("prefect", "mlflow"):
        assert not _one(wanted, "Deployment", name)["spec"]["template"]["spec"]["automountServiceAccountToken"]


@pytest.mark.parametrize("name", PLATFORMS)
def test_no_pod_carries_the_token_of_the_default_account(name: str) -> None:
    pods = [
        item["spec"]["template"]["spec"]
        for item in platform_manifests(PLATFORMS[name])
        if "template" in item.get("spec", {})
    ]
    assert len(pods) >= 4
    for pod in pods:
        own = pod.get("serviceAccountName", "default") != "default"
        assert own or pod["automountServiceAccountToken"] is False


def test_the_namespace_is_closed_but_for_what_is_named_and_takes_folders_of_nodes() -> None:
    wanted = PLATFORMS["folder of a node"]
    assert _one(wanted, "NetworkPolicy", "mlops-closed")["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert namespace(wanted)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"


def test_a_changed_environment_is_another_worker() -> None:
    first, second = (
        _one(PLATFORMS[name], "Deployment", "worker")["spec"]["template"]["metadata"]["annotations"]
        for name in ("storage class", "folder of all nodes")
    )
    assert first["mlops/environment"] != second["mlops/environment"]


def _broken(change: str) -> list[dict[str, Any]]:
    manifests = copy.deepcopy(platform_manifests(PLATFORMS["default class and quota"]))
    by_name = {(item["kind"], item["metadata"]["name"]): item for item in manifests}
    prefect = by_name["Deployment", "prefect"]["spec"]
    pod = prefect["template"]["spec"]
    container = pod["containers"][0]
    match change:
        case "selector":
            prefect["template"]["metadata"]["labels"]["app.kubernetes.io/component"] = "other"
        case "restart":
            pod["restartPolicy"] = "OnFailure"
        case "latest":
            container["image"] = "registry.example:5000/mlops:latest"
        case "no tag":
            container["image"] = "registry.example:5000/mlops"
        case "mount":
            pod["volumes"] = []
        case "privileges":
            del container["securityContext"]["allowPrivilegeEscalation"]
        case "limits":
            del container["resources"]["limits"]
        case "probe":
            container["livenessProbe"]["httpGet"]["port"] = 4201
        case "secret key":
            container["env"][-1]["valueFrom"]["secretKeyRef"]["key"] = "no-such"
        case "secret":
            container["env"][-1]["valueFrom"]["secretKeyRef"]["name"] = "no-such"
        case "config map":
            by_name["Deployment", "worker"]["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["configMapRef"][
                "name"
            ] = "no-such"
        case "claim":
            manifests.remove(by_name["PersistentVolumeClaim", "mlops-artifacts"])
        case "account":
            by_name["Deployment", "worker"]["spec"]["template"]["spec"]["serviceAccountName"] = "no-such"
        case "priority":
            manifests.remove(by_name["PriorityClass", "mlops-platform"])
        case "port":
            by_name["Service", "prefect"]["spec"]["ports"][0]["targetPort"] = 4300
        case "service":
            by_name["Service", "prefect"]["spec"]["selector"] = {"app": "prefect"}
        case "headless":
            del by_name["Service", "postgres"]["spec"]["clusterIP"]
        case "password in a map":
            by_name["ConfigMap", "mlops-environment"]["data"]["DATABASE_PASSWORD"] = "hunter2"
        case "password in an address":
            by_name["ConfigMap", "mlops-environment"]["data"]["WHERE"] = "postgresql://me:hunter2@postgres/mlflow"
        case "password in a variable":
            container["env"].append({"name": "PREFECT_API_KEY", "value": "hunter2"})
        case "a secret among them":
            manifests.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "data": {"a": "aHU="}})
        case "role":
            by_name["RoleBinding", "mlops-run"]["roleRef"]["name"] = "no-such"
        case "subject":
            by_name["RoleBinding", "mlops-run"]["subjects"][0]["name"] = "no-such"
        case "quota":
            pod["priorityClassName"] = "mlops-training"
            container["resources"]["requests"]["cpu"] = "9"
        case "twice":
            manifests.append(by_name["Service", "prefect"])
    return manifests


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("selector", "Deployment prefect: selects other labels than its pods have"),
        ("restart", "Deployment prefect: has restartPolicy OnFailure"),
        ("latest", "has the image registry.example:5000/mlops:latest"),
        ("no tag", "has the image registry.example:5000/mlops\n"),
        ("mount", "mounts tmp, which is no volume of its pod"),
        ("privileges", "container prefect: may get more rights than it starts with"),
        ("limits", "container prefect: names no limits of cpu and memory"),
        ("probe", "is probed at port 4201"),
        ("secret key", "names the key no-such, which Secret mlops-credentials has not"),
        ("secret", "names the Secret no-such, which is not there"),
        ("config map", "Deployment worker: names the ConfigMap no-such"),
        ("claim", "Deployment mlflow: names the PersistentVolumeClaim mlops-artifacts, which is not there"),
        ("account", "names the ServiceAccount no-such"),
        ("priority", "names the PriorityClass mlops-platform"),
        ("port", "Service prefect: leads to port 4300"),
        ("service", "Service prefect: selects no pods"),
        ("headless", "StatefulSet postgres: names no Service with clusterIP None"),
        ("password in a map", "ConfigMap mlops-environment, key DATABASE_PASSWORD: looks like a secret"),
        ("password in an address", "ConfigMap mlops-environment, key WHERE: looks like a secret"),
        ("password in a variable", "variable PREFECT_API_KEY: looks like a secret"),
        ("a secret among them", "Secret x: is among the manifests"),
        ("role", "RoleBinding mlops-run: names the Role no-such"),
        ("subject", "RoleBinding mlops-run: names the ServiceAccount no-such"),
        ("quota", "ResourceQuota mlops-runs: allows 8 of requests.cpu, the manifests ask for 9"),
        ("twice", "Service prefect: is there twice"),
    ],
)
def test_the_check_finds(change: str, told: str) -> None:
    problems = check(_broken(change), Outside(secrets=SECRETS))
    text = "".join(f"{problem}\n" for problem in problems)
    assert told in text
    assert "hunter2" not in text
