"""The image built and pushed by docker's daemon, which trusts a registry only when its host has been told to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import docker_host
import images
import package_index
import pytest
from certificates import Authority
from docker_host import DockerHost
from package_index import PackageIndex
from registries import PASSWORD, DockerRegistry

from configs.problems import UserError
from infra.image.builders import find_builder
from infra.image.making import open_making

pytestmark = pytest.mark.skipif(bool(docker_host.missing()), reason=docker_host.missing())


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerHost]:
    with DockerHost(tmp_path / "docker") as host:
        for name, value in host.environment.items():
            monkeypatch.setenv(name, value)
        yield host


def test_docker_builds_and_pushes_once_its_daemon_trusts_the_registry(docker: DockerHost, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    tls = authority.issue(docker.near)
    said: list[str] = []
    index = PackageIndex(tmp_path / "index", tls, host=docker.near)
    with DockerRegistry(tmp_path / "registry", tls, host=docker.near) as registry:
        base = docker.make_base(f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin")
        site = images.make_site(registry, authority.pem, tmp_path, index, base=base, torch="cpu")
        checkout = images.make_checkout(tmp_path / "checkout", images.fill(index), site)
        home = checkout / ".mlops"
        assert find_builder(None) == "docker", "of those that work it is the first"
        with open_making(checkout, home, dirty=False) as making:
            assert not making.find()
            making.build(said.append)
            with pytest.raises(UserError, match=f"sudo install .*/etc/docker/certs.d/{registry.address}/ca.crt"):
                making.push(said.append)
            docker.trust(registry.address, authority.pem)
            making.push(said.append)
            record = making.record()
        with open_making(checkout, home, dirty=False) as again:
            assert again.find(), "it is in the registry"
    index.close()
    for secret in (PASSWORD, package_index.PASSWORD):
        assert secret not in "\n".join(said)
        assert secret not in docker.run("history", "--no-trunc", making.plan.name)
    labels = '{{index .Config.Labels "org.opencontainers.image.revision"}} {{.Config.User}}'
    assert docker.run("inspect", "--format", labels, making.plan.name) == f"{record.commit} 10001:10001"
    checks = "import os, tiny, torch; print(os.getuid(), tiny.ANSWER, torch.VARIANT)"
    assert docker.run("run", "--rm", making.plan.name, "python", "-c", checks) == "10001 42 cpu"
