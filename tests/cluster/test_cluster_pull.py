"""Pods pull from a registry with TLS and logins, by digest, as our own code tells nodes and pods to.

Needs, besides a cluster: ``MLOPS_TEST_HOST``, an address of this machine that the nodes reach, and
``MLOPS_TEST_CERTS_D``, the folders (separated by colons) that the nodes' containerd reads as ``certs.d``.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pytest
from base_images import BASE, ContainerTools
from certificates import Authority
from lightkube import Client
from lightkube.models.core_v1 import Container, LocalObjectReference, PodSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace, Pod, Secret
from registries import PASSWORD, USER, DockerRegistry

from configs.registry import Registry
from configs.secret import PasswordReference
from infra.registry.client import RegistryClient
from infra.registry.containerd import containerd_files
from infra.registry.login import Login, access, docker_config

HOST, CERTS_D = os.environ.get("MLOPS_TEST_HOST"), os.environ.get("MLOPS_TEST_CERTS_D")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="needs KUBECONFIG"),
    pytest.mark.skipif(not (HOST and CERTS_D), reason="needs MLOPS_TEST_HOST and MLOPS_TEST_CERTS_D"),
]
GOOD, BAD = Login(USER, PASSWORD), Login(USER, "wrong")


@dataclass
class Site:
    """A registry, told to the nodes or not, and an image in it."""

    registry: Registry
    reference: str
    server: DockerRegistry
    node_folders: list[Path] = field(default_factory=list)

    def tell_nodes(self, ca_pem: str | None) -> None:
        """Do on each node what its administrator does: write the rendered files."""
        for certs_d in str(CERTS_D).split(":"):
            for path, text in containerd_files(self.registry, ca_pem, PurePosixPath(certs_d)).items():
                Path(path).parent.mkdir(exist_ok=True)
                Path(path).write_text(text)
            self.node_folders.append(Path(certs_d) / self.registry.address)

    def close(self) -> None:
        self.server.stop()
        for folder in self.node_folders:
            shutil.rmtree(folder, ignore_errors=True)


class Cluster:
    """A namespace of its own, and pods in it."""

    def __init__(self) -> None:
        self.client = Client()
        self.namespace = f"image-{secrets.token_hex(3)}"
        self.client.create(Namespace(metadata=ObjectMeta(name=self.namespace)))

    def remove(self) -> None:
        self.client.delete(Namespace, self.namespace)

    def start(self, name: str, site: Site, login: Login | None, image: str | None = None) -> str:
        """Start a pod that prints its user; returns its name."""
        if login is not None:
            secret = Secret(
                metadata=ObjectMeta(name=name, namespace=self.namespace),
                type="kubernetes.io/dockerconfigjson",
                stringData={".dockerconfigjson": docker_config(site.registry, login)},
            )
            self.client.create(secret)
        container = Container(
            name="main", image=image or site.reference, command=["id", "-u"], imagePullPolicy="Always"
        )
        pull = [LocalObjectReference(name=name)] if login else None
        spec = PodSpec(containers=[container], restartPolicy="Never", imagePullSecrets=pull)
        self.client.create(Pod(metadata=ObjectMeta(name=name, namespace=self.namespace), spec=spec))
        return name

    def outcome(self, name: str, seconds: float = 120) -> tuple[str, str]:
        """Wait for a pod's end, or for what its image's pull came to: the reason, and the message of the node."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self.client.get(Pod, name, namespace=self.namespace).status
            if status and status.phase in ("Succeeded", "Failed"):
                return status.phase, "".join(self.client.log(name, namespace=self.namespace)).strip()
            for container in (status and status.containerStatuses) or []:
                waiting = container.state and container.state.waiting
                if waiting and waiting.reason == "ErrImagePull":
                    return waiting.reason, waiting.message or ""
            time.sleep(0.1)
        raise AssertionError(f"pod {name} came to nothing")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    found = Cluster()
    yield found
    found.remove()


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerTools]:
    made = ContainerTools(tmp_path_factory.mktemp("pull") / "containers")
    made.make_base()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def publish(folder: Path, tools: ContainerTools, authority: Authority) -> Site:
    """Start a registry and push an image to it."""
    server = DockerRegistry(folder, authority.issue(str(HOST)), host=str(HOST)).start()
    registry = Registry(
        address=server.address,
        repository="mlops/test",
        ca=authority.pem,
        user=USER,
        password=PasswordReference(environment="P"),
    )
    name = f"{registry.image}:1"
    tools.run("podman", "tag", BASE, name)
    with access(registry, GOOD, authority.pem) as way:
        login = ["--authfile", str(way.auth_file), "--cert-dir", str(way.certificates)]
        tools.run("podman", "push", *login, name)
    with RegistryClient(registry, GOOD, authority.pem) as client:
        digest = client.digest("1")
    return Site(registry, f"{registry.image}@{digest}", server)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tools: ContainerTools, authority: Authority) -> Iterator[Site]:
    """A registry whose CA the nodes know."""
    made = publish(tmp_path_factory.mktemp("registry"), tools, authority)
    made.tell_nodes(authority.pem.read_text())
    yield made
    made.close()


def test_a_pod_pulls_by_digest_with_its_login(cluster: Cluster, site: Site) -> None:
    assert cluster.outcome(cluster.start("good", site, GOOD)) == ("Succeeded", "0")


@pytest.mark.parametrize(("name", "login"), [("bad-password", BAD), ("no-login", None)])
def test_a_wrong_login_is_told(cluster: Cluster, site: Site, name: str, login: Login | None) -> None:
    reason, message = cluster.outcome(cluster.start(name, site, login))
    print(f"\nMESSAGE {name}: {message}")
    assert reason == "ErrImagePull"
    assert "401 Unauthorized" in message or "no basic auth credentials" in message


def test_a_digest_that_is_not_there_is_told(cluster: Cluster, site: Site) -> None:
    reason, message = cluster.outcome(
        cluster.start("no-image", site, GOOD, image=f"{site.registry.image}@sha256:{'0' * 64}")
    )
    print(f"\nMESSAGE no-image: {message}")
    assert (reason, "not found" in message) == ("ErrImagePull", True)


def test_an_unknown_ca_is_told(cluster: Cluster, tools: ContainerTools, authority: Authority, tmp_path: Path) -> None:
    unknown = publish(tmp_path / "registry", tools, authority)
    try:
        reason, message = cluster.outcome(cluster.start("unknown-ca", unknown, GOOD))
        print(f"\nMESSAGE unknown-ca: {message}")
        assert reason == "ErrImagePull"
        assert "x509: certificate signed by unknown authority" in message
        unknown.tell_nodes(Authority(tmp_path / "other", "Other CA").pem.read_text())
        reason, message = cluster.outcome(cluster.start("other-ca", unknown, GOOD))
        print(f"\nMESSAGE other-ca: {message}")
        assert "x509: certificate signed by unknown authority" in message
        # Nothing on a node has to be restarted once it is told.
        unknown.tell_nodes(authority.pem.read_text())
        assert cluster.outcome(cluster.start("told-ca", unknown, GOOD)) == ("Succeeded", "0")
    finally:
        unknown.close()


def test_a_registry_that_is_down_is_told(
    cluster: Cluster, tools: ContainerTools, authority: Authority, tmp_path: Path
) -> None:
    down = publish(tmp_path / "registry", tools, authority)
    try:
        down.tell_nodes(authority.pem.read_text())
        down.server.stop()
        reason, message = cluster.outcome(cluster.start("down", down, GOOD))
        print(f"\nMESSAGE down: {message}")
        assert (reason, "connection refused" in message) == ("ErrImagePull", True)
    finally:
        down.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [("expired", "certificate has expired"), ("other-name", "certificate is valid for 192.0.2.7, not")],
)
def test_a_bad_certificate_is_told(
    cluster: Cluster, authority: Authority, tmp_path: Path, name: str, said: str
) -> None:
    bad = authority.issue(str(HOST), days=-1) if name == "expired" else authority.issue("192.0.2.7")
    server = DockerRegistry(tmp_path, bad, host=str(HOST)).start()
    registry = Registry(address=server.address, user=USER, password=PasswordReference(environment="P"))
    site = Site(registry, f"{registry.image}@sha256:{'0' * 64}", server)
    try:
        site.tell_nodes(authority.pem.read_text())
        reason, message = cluster.outcome(cluster.start(name, site, GOOD))
        print(f"\nMESSAGE {name}: {message}")
        assert (reason, said in message) == ("ErrImagePull", True)
    finally:
        site.close()
