"""A machine without any package source but a bundle that another one has made."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from lab import RELEASE, Lab, LabMachine
from lab_sites import LabSite

from infra.site.bundle import BUNDLE, PLACE
from infra.site.engine import Key, Outcome, State, problems_of
from infra.site.step import Step

pytestmark = pytest.mark.machine
CHECKOUT = Path(__file__).parents[2]
SOURCES = f"deb http://192.0.2.1/debian {RELEASE} main\n"
"""An address where nobody ever answers."""


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> LabSite:
    """Machine ``registry`` has Debian's packages, ``storage`` has none, and no network that leads to any."""
    made = LabSite(lab, tmp_path_factory.mktemp("checkout"))
    offline = made.machines["storage"]
    offline.run("rm", "-r", "/repo")
    (offline.root / "etc/apt/sources.list").write_text(SOURCES)
    return made


def bundle(site: LabSite, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "MLOPS_HOME": str(site.home), "NO_COLOR": "1"}
    command = (sys.executable, "-m", "cli", "site", "bundle", "registry", "--no-community", *words)
    return subprocess.run(
        command, cwd=site.root, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def apply(site: LabSite, machine: str = "storage") -> dict[Key, Outcome]:
    # But health: what a busy host's containers start with is no matter of packages.
    wanted = [step for step in site.steps() if step.machine == machine and step.name != "health"]
    return site.run(apply=True, steps=wanted)


def fits(outcomes: dict[Key, Outcome]) -> bool:
    assert {key: item.error for key, item in outcomes.items() if item.error} == {}
    return {item.state for item in outcomes.values()} == {State.FITS}


def pack(folder: Path, path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for item in sorted(folder.iterdir()):
            archive.add(item, item.name)


def stamp(machine: LabMachine) -> float:
    return (machine.root / str(BUNDLE / "digest").lstrip("/")).stat().st_mtime


def test_a_bundle_is_made_and_leaves_nothing_on_the_machine_that_made_it(site: LabSite) -> None:
    done = bundle(site)
    assert done.returncode == 0, done.stdout + done.stderr
    path = site.root / "site-packages.tar"
    with tarfile.open(path) as archive:
        names = archive.getnames()
        release = archive.extractfile("release")
        assert release is not None
        assert release.read().decode().split()[:2] == ["debian", RELEASE]
    for package in ("samba_", "docker-registry_", "chrony_", "libc6_"):
        assert any(name.startswith(package) for name in names), package
    maker = site.machines["registry"].root
    assert not (maker / str(PLACE).lstrip("/")).exists()
    assert "samba" not in site.machines["registry"].run("dpkg-query", "--show", "--showformat", "${Package} ")
    # The same packages are the same file: machines that have it are not given it again.
    first = hashlib.sha256(path.read_bytes()).hexdigest()
    assert bundle(site).returncode == 0
    assert hashlib.sha256(path.read_bytes()).hexdigest() == first


def test_a_machine_is_provisioned_by_the_bundle_alone(site: LabSite) -> None:
    offline = site.machines["storage"]
    site.file.write_text(
        site.file.read_text().replace("hosts:\n", "packages: {bundle: site-packages.tar}\nhosts:\n", 1)
    )
    outcomes = apply(site)
    assert not fits(outcomes)
    assert "carry site-packages.tar there" in [change.what for change in outcomes["storage", "packages"].changes]
    assert offline.run("systemctl", "is-active", "smbd").strip() == "active"
    assert f"file:{BUNDLE}" in offline.run("apt-cache", "policy", "samba")
    carried = stamp(offline)
    assert fits(apply(site))
    assert stamp(offline) == carried
    # Its own sources are as they were, for the day when it has a network.
    assert (offline.root / "etc/apt/sources.list").read_text() == SOURCES


def test_another_bundle_is_carried_and_comes_before_other_sources(site: LabSite) -> None:
    assert bundle(site, "--package", "socat").returncode == 0
    offline = site.machines["storage"]
    before = stamp(offline)
    site.file.write_text(site.file.read_text().replace("site-packages.tar}", "site-packages.tar, only: false}"))
    (offline.root / "etc/apt/sources.list").write_text("")
    assert [change.what for change in apply(site)["storage", "packages"].changes][:2] == [
        "carry site-packages.tar there",
        "write /etc/apt/sources.list.d/mlops-site.sources",
    ]
    assert stamp(offline) > before
    offline.run("apt-get", "-q", "update")
    said = offline.run("apt-cache", "policy")
    assert "990 file:/var/lib/mlops/packages" in said
    assert fits(apply(site))


@pytest.mark.parametrize("only", ["true", "false"])
def test_a_machine_that_has_one_makes_the_next_of_its_own_sources(site: LabSite, only: str) -> None:
    maker, text = site.machines["registry"], site.file.read_text()
    site.file.write_text(text.replace("only: false", f"only: {only}"))
    assert {item.error for item in site.run(apply=True, steps=carrying(site, "registry")).values()} == {None}
    maker.run("apt-get", "-q", "update")
    assert f"file:{BUNDLE}" in maker.run("apt-cache", "policy", "socat")
    first = hashlib.sha256((site.root / "site-packages.tar").read_bytes()).hexdigest()
    # Without its own sources it would find all that the bundle has, and nothing newer ever.
    (maker.root / "etc/apt/sources.list").rename(maker.root / "root/sources.list")
    assert bundle(site, "--package", "socat", "--output", "no.tar").returncode == 1
    (maker.root / "root/sources.list").rename(maker.root / "etc/apt/sources.list")
    made = bundle(site, "--package", "socat")
    assert made.returncode == 0, made.stdout + made.stderr
    assert hashlib.sha256((site.root / "site-packages.tar").read_bytes()).hexdigest() == first
    site.file.write_text(text)


def carrying(site: LabSite, machine: str) -> list[Step]:
    return [step for step in site.steps() if (step.machine, step.name) == (machine, "packages")]


def test_a_bundle_that_was_cut_or_is_for_another_release_is_not_used(site: LabSite) -> None:
    path, offline = site.root / "site-packages.tar", site.machines["storage"]
    whole = path.read_bytes()
    folder = site.root / "other"
    folder.mkdir()
    subprocess.run(["tar", "--extract", "--file", str(path), "--directory", str(folder)], check=True)
    (folder / "release").write_text("ubuntu noble amd64\n")
    pack(folder, path)
    (problem,) = problems_of(apply(site))
    assert f"ubuntu noble amd64, and the machine is debian {RELEASE}" in problem.what
    assert "mlops site bundle" in problem.remedy
    # A package that was changed on the way into the archive is found by the list before anything is replaced.
    architecture = offline.run("dpkg", "--print-architecture").strip()
    (folder / "release").write_text(f"debian {RELEASE} {architecture}\n")
    next(folder.glob("socat_*.deb")).write_bytes(b"not what was packed")
    pack(folder, path)
    before = stamp(offline)
    assert any("socat" in str(problem) and "FAILED" in str(problem) for problem in problems_of(apply(site)))
    assert stamp(offline) == before
    path.write_bytes(whole)
    shutil.rmtree(folder)
    assert fits(apply(site))
