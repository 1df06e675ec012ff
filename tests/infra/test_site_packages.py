"""Package sources as a pure step, and what a bundle is made of."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from configs.kubernetes import Kubernetes
from configs.packages import Packages
from configs.problems import UserError
from infra.machines.commands import Command, File, Upload
from infra.site.bundle import RELEASE_FACT, bundle_command, open_bundle, wanted_packages
from infra.site.facts import Fact, Reading
from infra.site.step import Change
from infra.site.steps.base import base_step
from infra.site.steps.kubernetes import kubernetes_step
from infra.site.steps.packages import package_sources, packages_step, sole_bundle

KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----\n"
BOOKWORM = Reading(0, "debian bookworm amd64\n")


def bundle_at(path: Path, release: str = "debian bookworm amd64\n", packages: str = "") -> Path:
    with tarfile.open(path, "w") as archive:
        for name, text in (("release", release), ("Packages", packages)):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def found(root: Path, section: dict[str, object], known: dict[Fact, Reading] | None = None) -> list[Change]:
    step = packages_step("one", package_sources(Packages.model_validate(section), root))
    readings = {fact: Reading(1, "") for fact in step.facts} | {RELEASE_FACT: BOOKWORM} | (known or {})
    return list(step.changes(readings))


def written(changes: list[Change]) -> dict[str, str]:
    return {str(item.path): item.text for change in changes for item in change.actions if isinstance(item, File)}


def test_a_mirror_is_asked_alone_and_the_machines_own_sources_stay_for_another_day(tmp_path: Path) -> None:
    (tmp_path / "mirror.asc").write_text(KEY)
    sources = [
        {
            "url": "https://mirror.example.org/debian",
            "distribution": "debian",
            "suites": ["{codename}", "{codename}-updates"],
            "components": ["main", "contrib"],
            "keyring": "mirror.asc",
        },
        {"url": "https://mirror.example.org/ubuntu", "distribution": "ubuntu"},
        {"url": "https://mirror.example.org/kubernetes/v1.33/deb", "suites": ["/"]},
    ]
    files = written(found(tmp_path, {"sources": sources, "proxy": "http://proxy.example.org:3128"}))
    (keyring,) = (path for path in files if path.endswith(".asc"))
    assert files[keyring] == KEY
    assert files["/etc/apt/mlops.sources.d/site.sources"] == (
        "# Rendered for this site: changes here are lost.\n\n"
        "Types: deb\nURIs: https://mirror.example.org/debian\nSuites: bookworm bookworm-updates\n"
        f"Components: main contrib\nSigned-By: {keyring}\n\n"
        "Types: deb\nURIs: https://mirror.example.org/kubernetes/v1.33/deb\nSuites: /\n"
    )
    configuration = files["/etc/apt/apt.conf.d/95mlops-site"]
    assert 'Dir::Etc::SourceParts "/etc/apt/mlops.sources.d";' in configuration
    assert 'Acquire::https::Proxy "http://proxy.example.org:3128";' in configuration
    assert not any(path.startswith("/etc/apt/sources.list") for path in files)


def test_beside_the_machines_own_sources(tmp_path: Path) -> None:
    section = {"sources": [{"url": "https://mirror.example.org/debian"}], "only": False}
    files = written(found(tmp_path, section))
    assert "/etc/apt/sources.list.d/mlops-site.sources" in files
    assert "SourceParts" not in files["/etc/apt/apt.conf.d/95mlops-site"]


def test_a_proxy_alone_leaves_the_sources(tmp_path: Path) -> None:
    files = written(found(tmp_path, {"proxy": "http://proxy.example.org:3128"}))
    assert "SourceParts" not in files["/etc/apt/apt.conf.d/95mlops-site"]
    assert "/etc/apt/mlops.sources.d/site.sources" not in files


def test_a_bundle_is_carried_when_its_digest_is_another_one(tmp_path: Path) -> None:
    path = bundle_at(tmp_path / "b.tar")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    carry, *_ = found(tmp_path, {"bundle": "b.tar"})
    upload, unpack = carry.actions
    assert isinstance(upload, Upload)
    assert (upload.local, upload.digest) == (path, digest)
    assert isinstance(unpack, Command)
    assert "sha256sum --check" in unpack.argv[2]
    said = Fact(("cat", "/var/lib/mlops/packages/digest"))
    there = found(tmp_path, {"bundle": "b.tar"}, {said: Reading(0, f"{digest}\n")})
    assert not any(isinstance(action, Upload) for change in there for action in change.actions)
    (other,) = found(tmp_path, {"bundle": "b.tar"}, {RELEASE_FACT: Reading(0, "ubuntu noble amd64\n")})
    assert "debian bookworm amd64, and the machine is ubuntu noble amd64" in other.why
    assert other.by_hand


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"bundle": "no.tar"}, "mlops site bundle MACHINE"),
        ({"bundle": "text"}, "is no bundle of packages"),
        ({"sources": [{"url": "https://a.example", "keyring": "text"}]}, "ASCII armour"),
    ],
)
def test_files_that_are_not_what_they_should_be_are_told(tmp_path: Path, section: dict[str, object], said: str) -> None:
    (tmp_path / "text").write_text("text")
    with pytest.raises(UserError, match=said):
        package_sources(Packages.model_validate(section), tmp_path)


def test_an_archive_without_a_release_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not say which release"):
        open_bundle(bundle_at(tmp_path / "b.tar", "debian\n"))


def test_a_bundle_says_which_releases_of_kubernetes_it_has_all_of(tmp_path: Path) -> None:
    index = "".join(
        f"Package: {name}\nArchitecture: amd64\nVersion: {version}-1.1\nDepends: libc6\n\n"
        for name, versions in (
            ("kubeadm", ("1.34.9", "1.33.13", "1.9.1")),
            ("kubelet", ("1.34.9", "1.33.13", "1.9.1")),
            ("kubectl", ("1.34.9", "1.9.1")),
            ("kubernetes-cni", ("1.33.13",)),
        )
        for version in versions
    )
    assert open_bundle(bundle_at(tmp_path / "b.tar", packages=index)).kubernetes == ("1.9.1", "1.34.9")
    assert open_bundle(bundle_at(tmp_path / "b.tar")).kubernetes == ()


@pytest.mark.parametrize(
    ("section", "alone"),
    [
        ({"bundle": "b.tar"}, True),
        ({"bundle": "b.tar", "only": False}, False),
        ({"bundle": "b.tar", "sources": [{"url": "https://a.example", "suites": ["/"]}]}, False),
        ({"proxy": "http://proxy.example.org:3128"}, False),
    ],
)
def test_a_bundle_is_the_only_source_or_one_of_several(tmp_path: Path, section: dict[str, object], alone: bool) -> None:
    bundle_at(tmp_path / "b.tar")
    assert (sole_bundle(Packages.model_validate(section), tmp_path) is not None) is alone


def test_a_bundle_has_what_the_steps_install_and_of_kubernetes_the_sites_release() -> None:
    wanted = Kubernetes.model_validate({"version": "1.33.5"})
    steps = [base_step("one", {}), kubernetes_step("one", wanted, ())]
    names = wanted_packages(steps, wanted)
    assert {"ca-certificates", "chrony", "kubeadm=1.33.5-*", "kubelet=1.33.5-*"} <= set(names)
    assert not [name for name in names if "{" in name or name.startswith("-")]
    assert bundle_command(names, "https://pkgs.example/deb/").argv[4:6] == ("https://pkgs.example/deb", names[0])
