"""How each builder is called: the password is in a file of its own, never among the arguments or variables."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from registries import PASSWORD, USER

from configs.registry import Registry
from configs.secret import PasswordReference
from infra.image.builders import build_command, push_command, remedy_for_tls
from infra.registry.login import Login, access

NAME = "registry:5000/mlops/test:1"
REGISTRY = Registry(address="registry:5000", user=USER, password=PasswordReference(environment="P"))


@pytest.mark.parametrize("builder", ["podman", "buildah"])
def test_podman_and_buildah_are_called_alike(builder: str, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("PEM")
    secrets = {"pip.conf": Path("/etc/pip.conf")}
    with access(REGISTRY, Login(USER, PASSWORD), tmp_path / "ca.pem") as way:
        build = build_command(builder, Path("/context"), NAME, {"TORCH": "cpu"}, secrets, None)  # type: ignore[arg-type]
        push = push_command(builder, NAME, way)  # type: ignore[arg-type]
    assert build.environment == {}
    assert build.arguments == [
        *(builder, "build", "--file", "/context/Dockerfile", "--tag", NAME, "--layers"),
        *("--build-arg", "TORCH=cpu", "--secret", "id=pip.conf,src=/etc/pip.conf", "/context"),
    ]
    assert push.arguments == [builder, "push", "--cert-dir", str(way.certificates), NAME]
    assert push.environment == {"REGISTRY_AUTH_FILE": str(way.auth_file)}


def test_docker_keeps_its_daemon_and_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = tmp_path / "docker"
    (usual / "cli-plugins").mkdir(parents=True)
    settings = {"currentContext": "far", "credsStore": "desktop", "auths": {"other:5000": {"auth": "b3RoZXI="}}}
    (usual / "config.json").write_text(json.dumps(settings))
    monkeypatch.setenv("DOCKER_CONFIG", str(usual))
    with access(REGISTRY, Login(USER, PASSWORD), None) as way:
        build = build_command("docker", Path("/context"), NAME, {}, {}, way)
        push = push_command("docker", NAME, way)
        ours = json.loads(way.auth_file.read_text())
        assert stat.S_IMODE(way.auth_file.stat().st_mode) == 0o600
        assert (way.folder / "cli-plugins").resolve() == usual / "cli-plugins"
    assert ours["currentContext"] == "far"
    assert set(ours["auths"]) == {"registry:5000"}
    assert "credsStore" not in ours, "a store would be asked instead of the file"
    assert build.arguments[-3:] == ["--progress", "plain", "/context"]
    assert build.environment == {"DOCKER_BUILDKIT": "1", "DOCKER_CONFIG": str(way.folder)}
    assert push.arguments == ["docker", "push", NAME]
    assert (usual / "cli-plugins").is_dir(), "what is the user's own stays"


def test_docker_needs_root_once_to_trust_a_ca() -> None:
    told = remedy_for_tls("docker", "registry:5000", Path("/home/alice/ca.pem"))
    assert "sudo install -D -m 644 /home/alice/ca.pem /etc/docker/certs.d/registry:5000/ca.crt" in told
    assert "registry.ca" in remedy_for_tls("podman", "registry:5000", Path("/home/alice/ca.pem"))
