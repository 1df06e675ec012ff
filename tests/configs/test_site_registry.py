"""Sections `registry` and `image` of the site: what is wrong is told with its line, and secrets are never repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
from site_files import SHIPPED, told, write

from configs.registry import Registry
from configs.site import load_site


def test_the_examples_in_the_shipped_site_are_valid(tmp_path: Path) -> None:
    lines = [line.removeprefix("# ") for line in SHIPPED.read_text().splitlines()]
    example = lines[lines.index("registry:") :]
    kept = [line for line in example if line.startswith((" ", "registry:", "image:"))]
    found = load_site(write(tmp_path, "\n".join(kept) + "\n"))
    assert found.registry is not None
    assert found.registry.image == "registry.example.org:5000/mlops/kubernetes-mlops"
    assert found.image.torch == "cpu"


def test_a_site_need_not_have_a_registry() -> None:
    assert load_site(SHIPPED).registry is None


@pytest.mark.parametrize(
    "address",
    ["registry.example.org", "registry:5000", "192.0.2.7:5000", "[2001:db8::7]:5000", "localhost", "docker.io"],
)
def test_addresses_that_container_tools_take_for_a_host(tmp_path: Path, address: str) -> None:
    found = load_site(write(tmp_path, f"registry:\n  address: '{address}'\n  repository: a/b\n")).registry
    assert found is not None
    assert found.image == f"{address}/a/b"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://registry.example.org", "by TLS only"),
        ("https://registry.example.org", "belongs into `repository`"),
        ("registry.example.org/mlops", "belongs into `repository`"),
        ("registry", "a name on Docker Hub"),
        ("registry:", "host:port"),
        ("registry:99999", "host:port"),
        ("registry:port", "host:port"),
        ("-registry.example.org", "host:port"),
    ],
)
def test_what_is_no_address_is_told(tmp_path: Path, address: str, said: str) -> None:
    assert said in told(write(tmp_path, f"registry:\n  address: '{address}'\n"))["3 registry.address"]


def test_no_secret_is_repeated(tmp_path: Path) -> None:
    text = (
        "registry:\n  address: alice:hunter2@registry.example.org\n  user: alice\n  password: hunter2\n"
        "image:\n  torch_index: https://alice:hunter2@packages.example.org/simple\n"
    )
    said = told(write(tmp_path, text))
    assert set(said) == {"3 registry.address", "5 registry.password", "7 image.torch_index"}
    assert "hunter2" not in str(said)


def test_a_login_is_whole(tmp_path: Path) -> None:
    assert "a login is" in str(told(write(tmp_path, "registry:\n  address: registry:5000\n  user: alice\n")))


def test_docker_hub_has_names_of_its_own() -> None:
    hub = Registry(address="docker.io", repository="alice/kubernetes-mlops")
    assert hub.url == "https://registry-1.docker.io"
    assert hub.login_key == "https://index.docker.io/v1/"
    with pytest.raises(ValueError, match="its owner"):
        Registry(address="docker.io")


@pytest.mark.parametrize("repository", ["Upper/case", "a//b", "/a", "a:tag", "a@sha256"])
def test_a_repository_has_neither_tag_nor_capitals(repository: str) -> None:
    with pytest.raises(ValueError, match="repository"):
        Registry(address="registry:5000", repository=repository)
