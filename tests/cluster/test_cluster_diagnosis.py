"""Every trouble that a cluster can make is made on a real one, and told in the right sentence within 90 s."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from certificates import Authority
from registries import PASSWORD, USER, DockerRegistry
from troubles import BUS, EAT, RAISE, claim, job, login, memory_shm, quota, volume
from watching import Watched

from benchmarks.kubernetes_lab import own_address
from configs.registry import Registry
from infra.kubernetes.diagnosis.record import Category
from infra.registry.containerd import containerd_files

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


@contextlib.contextmanager
def registry(folder: Path, watched: Watched, *, days: int = 1, name: str = "") -> Iterator[DockerRegistry]:
    """A registry that the nodes reach, whose authority they do not know."""
    host = own_address(str(watched.client.config.cluster.server))
    certificate = Authority(folder / "ca").issue(name or host, days=days)
    with DockerRegistry(folder / "registry", certificate, host=host) as running:
        yield running


def test_image_not_on_the_node(watched: Watched) -> None:
    watched.make(job(watched.run, "never", image="localhost/mlops:missing", pull="Never"))
    found = watched.told(Category.IMAGE_NOT_FOUND, "localhost/mlops:missing", "Never")
    assert not found.passing


def test_image_name_invalid(watched: Watched) -> None:
    watched.make(job(watched.run, "name", image="registry.example/Team/MLops:1"))
    watched.told(Category.IMAGE_NAME, "registry.example/Team/MLops:1")


def test_registry_unknown_authority(watched: Watched, tmp_path: Path) -> None:
    with registry(tmp_path, watched) as running:
        watched.make(job(watched.run, "tls", image=f"{running.address}/mlops:1"))
        found = watched.told(Category.REGISTRY_TLS, "does not know the authority")
    assert not found.passing


def test_registry_certificate_expired(watched: Watched, tmp_path: Path) -> None:
    with registry(tmp_path, watched, days=-1) as running, known(running, tmp_path):
        watched.make(job(watched.run, "expired", image=f"{running.address}/mlops:1"))
        watched.told(Category.REGISTRY_TLS, "has expired")


def test_registry_certificate_of_another_name(watched: Watched, tmp_path: Path) -> None:
    with registry(tmp_path, watched, name="registry.example") as running, known(running, tmp_path):
        watched.make(job(watched.run, "name", image=f"{running.address}/mlops:1"))
        watched.told(Category.REGISTRY_TLS, "for another name")


def test_image_not_in_the_registry(watched: Watched, tmp_path: Path) -> None:
    with registry(tmp_path, watched) as running, known(running, tmp_path):
        watched.make(login("good", running.address, USER, PASSWORD))
        image = f"{running.address}/mlops:missing"
        watched.make(job(watched.run, "missing", image=image, imagePullSecrets=[{"name": "good"}]))
        assert not watched.told(Category.IMAGE_NOT_FOUND, f"{image} does not exist").passing


def test_pull_with_a_wrong_password(watched: Watched, tmp_path: Path) -> None:
    with registry(tmp_path, watched) as running, known(running, tmp_path):
        watched.make(login("bad", running.address, USER, "not-the-password"))
        image = f"{running.address}/mlops:1"
        watched.make(job(watched.run, "denied", image=image, imagePullSecrets=[{"name": "bad"}]))
        found = watched.told(Category.PULL_DENIED, "refuses the login")
    assert "not-the-password" not in found.text()


def test_pull_without_its_secret(watched: Watched, tmp_path: Path) -> None:
    with registry(tmp_path, watched) as running, known(running, tmp_path):
        image = f"{running.address}/mlops:1"
        watched.make(job(watched.run, "secretless", image=image, imagePullSecrets=[{"name": "mlops-registry"}]))
        watched.told(Category.PULL_DENIED, "pull secret mlops-registry is missing")


@contextlib.contextmanager
def known(running: DockerRegistry, folder: Path) -> Iterator[None]:
    """Make the registry's authority known to containerd on all nodes."""
    places = [Path(place) for place in os.environ.get("MLOPS_TEST_CERTS_D", "").split(os.pathsep) if place]
    if not places:
        pytest.skip("containerd's certs.d folders of the nodes are not named by MLOPS_TEST_CERTS_D")
    made = [place / running.address for place in places]
    authority = (folder / "ca" / "ca.pem").read_text()
    for place in places:
        wanted = Registry(address=running.address, repository="mlops")
        for path, text in containerd_files(wanted, authority, PurePosixPath(place)).items():
            Path(path).parent.mkdir(exist_ok=True)
            Path(path).write_text(text)
    try:
        yield
    finally:
        for place in made:
            shutil.rmtree(place)


def test_registry_away(watched: Watched) -> None:
    watched.make(job(watched.run, "away", image="127.0.0.1:9/mlops:1"))
    assert watched.told(Category.REGISTRY_AWAY, "127.0.0.1:9").passing


def test_unschedulable_cpu(watched: Watched) -> None:
    watched.make(job(watched.run, "cpu", resources={"requests": {"cpu": "64"}}))
    found = watched.told(Category.UNSCHEDULABLE, "wants 64 CPU", " free")
    assert "Insufficient cpu" in found.evidence[0]
    assert "larger node" in found.remedy
    assert found.passing


def test_unschedulable_gpu(watched: Watched) -> None:
    if any("nvidia.com/gpu" in node.allocatable for node in watched.facts().nodes or ()):
        pytest.skip("this cluster has GPUs")
    watched.make(job(watched.run, "gpu", resources={"limits": {"nvidia.com/gpu": "1"}}))
    watched.told(Category.UNSCHEDULABLE, "wants 1 nvidia.com/gpu", "has no nvidia.com/gpu")


def test_unschedulable_selector(watched: Watched) -> None:
    watched.make(job(watched.run, "selector", nodeSelector={"example/disk": "fast"}))
    watched.told(Category.UNSCHEDULABLE, "has no label example/disk=fast")


def test_quota_used_up(watched: Watched) -> None:
    watched.make(quota("room", **{"requests.cpu": "200m"}))
    watched.make(job("another", "first", resources={"requests": {"cpu": "150m"}}))
    time.sleep(2)
    watched.make(job(watched.run, "second", resources={"requests": {"cpu": "100m"}}))
    found = watched.told(Category.QUOTA, "room is used up", "wants 100m requests.cpu", "150m of 200m")
    assert found.passing


def test_quota_never_enough(watched: Watched) -> None:
    watched.make(quota("small", **{"requests.memory": "100Mi"}))
    watched.make(job(watched.run, "large", resources={"requests": {"memory": "1Gi"}}))
    assert not watched.told(Category.QUOTA, "more than quota small allows at all").passing


def test_priority_class_missing(watched: Watched) -> None:
    watched.make(job(watched.run, "class", priorityClassName="unheard-of"))
    watched.told(Category.FORBIDDEN, "unheard-of")


def test_service_account_missing(watched: Watched) -> None:
    watched.make(job(watched.run, "account", serviceAccountName="nobody"))
    watched.told(Category.FORBIDDEN, "Service account nobody")


def test_claim_unbound(watched: Watched) -> None:
    watched.make(claim("data", "5Gi"))
    watched.make(job(watched.run, "claim", **volume("data", {"persistentVolumeClaim": {"claimName": "data"}})))
    watched.told(Category.PVC_UNBOUND, "data is not bound", "5Gi")


def test_claim_missing(watched: Watched) -> None:
    watched.make(job(watched.run, "nowhere", **volume("data", {"persistentVolumeClaim": {"claimName": "nowhere"}})))
    watched.told(Category.PVC_UNBOUND, "nowhere does not exist")


def test_secret_missing(watched: Watched) -> None:
    source = {"name": "PREFECT_API_AUTH_STRING", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "auth"}}}
    watched.make(job(watched.run, "secret", container={"env": [source]}))
    assert not watched.told(Category.CONFIG_MISSING, "Secret gone does not exist").passing


def test_secret_key_missing(watched: Watched) -> None:
    watched.make(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "half"}, "stringData": {"user": "PASSWORD-7731"}}
    )
    source = {"name": "LOGIN", "valueFrom": {"secretKeyRef": {"name": "half", "key": "password"}}}
    watched.make(job(watched.run, "key", container={"env": [source, {"name": "PASS", "value": "hush-4711"}]}))
    found = watched.told(Category.CONFIG_MISSING, "Secret half has no key password")
    assert "7731" not in found.text()
    assert "hush-4711" not in repr(watched.snapshot), "values of variables are never read"


def test_config_volume_missing(watched: Watched) -> None:
    watched.make(job(watched.run, "config", **volume("site", {"configMap": {"name": "mlops-site"}})))
    watched.told(Category.CONFIG_MISSING, "ConfigMap mlops-site does not exist")


def test_host_path_missing(watched: Watched) -> None:
    source = {"hostPath": {"path": "/nowhere/share", "type": "Directory"}}
    watched.make(job(watched.run, "hostpath", **volume("share", source)))
    watched.told(Category.MOUNT_FAILED, "has no directory /nowhere/share")


def test_csi_driver_missing(watched: Watched) -> None:
    watched.make(job(watched.run, "csi", **volume("share", {"csi": {"driver": "smb.csi.k8s.io"}})))
    watched.told(Category.MOUNT_FAILED, "smb.csi.k8s.io does not run on the node")


def test_out_of_memory(watched: Watched) -> None:
    watched.kind = "CRASHED"
    watched.make(job(watched.run, "oom", EAT, resources={"limits": {"memory": "64Mi"}}))
    found = watched.told(Category.OUT_OF_MEMORY, "limit of 64 MiB")
    assert not found.passing


def test_shared_memory_too_small(watched: Watched) -> None:
    watched.kind = "CRASHED"
    watched.make(job(watched.run, "shm", BUS, **memory_shm("16Mi")))
    assert not watched.told(Category.SHM, "/dev/shm of 16 MiB").passing


def test_exit_code_of_the_code(watched: Watched) -> None:
    watched.kind = "CRASHED"
    watched.make(job(watched.run, "code", RAISE))
    found = watched.told(Category.USER_CODE, "exit code 3", "ValueError: no images below data/train")
    assert "epoch 1 of 3" in found.evidence
    assert not found.passing


def test_command_not_in_the_shell(watched: Watched) -> None:
    watched.kind = "CRASHED"
    watched.make(job(watched.run, "shell", command=["sh", "-c", "torchrum train.py"]))
    found = watched.told(Category.USER_CODE, "exit code 127", "not found")
    assert "torchrum" in " ".join(found.evidence)


def test_command_not_in_the_image(watched: Watched) -> None:
    watched.kind = "CRASHED"
    watched.make(job(watched.run, "exec", command=["torchrum"]))
    watched.told(Category.IMAGE_UNUSABLE, "torchrum cannot be started")


def test_segmentation_fault(watched: Watched) -> None:
    watched.kind = "CRASHED"
    watched.make(job(watched.run, "segv", "import ctypes; ctypes.string_at(0)"))
    watched.told(Category.USER_CODE, "exit code 139", "SIGSEGV")


def test_deadline(watched: Watched) -> None:
    watched.kind = "CRASHED"
    watched.make(job(watched.run, "deadline", job={"activeDeadlineSeconds": 3}))
    assert not watched.told(Category.DEADLINE, "deadline of 3 s").passing


def test_prefect_unreachable(watched: Watched) -> None:
    code = """
        import time, urllib.request
        for attempt in range(600):
            try:
                urllib.request.urlopen("http://prefect.nowhere:4200/api/health")
            except OSError as error:
                print(f"Failed to reach API at http://prefect.nowhere:4200/api: {error}", flush=True)
            time.sleep(1)
    """
    watched.make(job(watched.run, "prefect", code))
    assert watched.told(Category.PREFECT_UNREACHABLE, "cannot be reached").passing


def test_evicted_by_request(watched: Watched) -> None:
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.core_v1 import Pod

    watched.kind = "RUNNING"
    watched.make(job(watched.run, "drain", terminationGracePeriodSeconds=20, command=STUBBORN))
    pod = _running(watched)
    eviction = Pod.Eviction(metadata=ObjectMeta(name=pod, namespace=watched.namespace))
    watched.client.create(eviction, pod, namespace=watched.namespace)
    assert watched.told(Category.EVICTED, "kubectl drain").passing


STUBBORN = ["sh", "-c", "trap '' TERM; sleep 600 & wait; wait"]
"""Ignores SIGTERM, so that its pod can be seen while it ends."""


def test_pod_deleted(watched: Watched) -> None:
    from lightkube.resources.core_v1 import Pod

    watched.kind = "RUNNING"
    watched.make(job(watched.run, "deleted"))
    watched.client.delete(Pod, _running(watched), namespace=watched.namespace)
    assert watched.told(Category.POD_DELETED, "was deleted").passing


def test_preempted(watched: Watched) -> None:
    """By a pod of higher priority, over a resource that only this test asks for."""
    watched.kind = "RUNNING"
    resource = f"example.com/{watched.namespace}"
    high = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1000}
    watched.make({**high, "metadata": {"name": f"{watched.namespace}-high"}})
    resources = {"limits": {resource: "1"}}
    node = next(node.name for node in watched.facts().nodes or () if node.ready)
    with _offered(watched, node, resource):
        low = {"resources": resources, "terminationGracePeriodSeconds": 20, "command": STUBBORN}
        watched.make(job(watched.run, "low", **low))
        _running(watched)
        watched.make(job("another", "high", resources=resources, priorityClassName=f"{watched.namespace}-high"))
        assert watched.told(Category.PREEMPTED, "higher priority", node).passing


@contextlib.contextmanager
def _offered(watched: Watched, node: str, resource: str) -> Iterator[None]:
    """One piece of ``resource`` on ``node``, as a device plugin would offer it."""
    from lightkube.resources.core_v1 import Node

    def offer(count: str | None) -> None:
        status = {"status": {"capacity": {resource: count}, "allocatable": {resource: count}}}
        watched.client.patch(Node.Status, node, status)

    offer("1")
    try:
        yield
    finally:
        offer(None)


def test_node_lost(watched: Watched) -> None:
    """Needs a node that may be taken away for two minutes, and two commands that stop and start its kubelet."""
    node, stop, start = (os.environ.get(f"MLOPS_TEST_{name}", "") for name in ("NODE", "NODE_STOP", "NODE_START"))
    if not (node and stop and start):
        pytest.skip("no node may be taken away: MLOPS_TEST_NODE, MLOPS_TEST_NODE_STOP, MLOPS_TEST_NODE_START")
    watched.kind = "RUNNING"
    leave = [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}]
    leave[0]["tolerationSeconds"] = 5  # type: ignore[assignment]
    watched.make(job(watched.run, "lost", nodeName=node, tolerations=leave))
    _running(watched)
    subprocess.run(["sh", "-c", stop], check=True, timeout=30)
    try:
        found = watched.told(Category.NODE_LOST, node, "does not answer")
    finally:
        subprocess.run(["sh", "-c", start], check=True, timeout=30)
    assert found.passing
    assert found.avoid == (node,)


def _running(watched: Watched) -> str:
    """Wait until the run's pod is at work; return its name."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        pods = [pod for pod in watched.facts().pods if pod.phase == "Running"]
        if pods:
            return pods[0].name
        time.sleep(0.5)
    raise AssertionError("its pod does not run")
