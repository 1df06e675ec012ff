"""Kubernetes' packages as a pure step: what apt and dpkg say in, what is still to be done out."""

from __future__ import annotations

from configs.kubernetes import Kubernetes
from infra.machines.commands import Command, File
from infra.site.facts import Reading
from infra.site.step import Change
from infra.site.steps.kubernetes import KEYRING, PACKAGES, kubernetes_step

ALL = "".join(f"{name} hi  1.33.5-1.1\n" for name in PACKAGES)


def found(installed: str, held: str, *, key: bool = True, packages: str = "community") -> list[Change]:
    step = kubernetes_step("one", Kubernetes.model_validate({"version": "1.33.5", "packages": packages}), ())
    answers = [Reading(0, installed), Reading(0, held), Reading(0 if key else 1), Reading(1)]
    return list(step.changes(dict(zip(step.facts, answers, strict=False))))


def test_what_is_installed_and_held_is_left_alone() -> None:
    assert found(ALL, "\n".join(PACKAGES), packages="system") == []


def test_packages_come_from_the_projects_repository_by_its_key() -> None:
    key, sources, install, hold = found("", "", key=False)
    assert key.what == f"write {KEYRING}"
    (curl,) = (item for item in key.actions if isinstance(item, Command) and item.argv[0] == "curl")
    assert curl.argv[-1] == "https://pkgs.k8s.io/core:/stable:/v1.33/deb/Release.key"
    assert curl.argv[curl.argv.index("--proto") + 1] == "=https"
    (file,) = sources.actions
    assert isinstance(file, File)
    assert f"Signed-By: {KEYRING}\n" in file.text
    assert "URIs: https://pkgs.k8s.io/core:/stable:/v1.33/deb/\n" in file.text
    assert install.what == "install kubeadm=1.33.5-* kubectl=1.33.5-* kubelet=1.33.5-*"
    assert hold.actions == (Command(("apt-mark", "hold", *PACKAGES)),)


def test_only_what_is_missing_is_installed() -> None:
    install, hold = found(ALL.replace("kubectl hi", "kubectl rc"), "kubeadm\nkubelet\n", packages="system")
    assert install.what == "install kubectl=1.33.5-*"
    assert hold.what == "hold kubectl"


def test_another_release_is_never_changed() -> None:
    (change,) = found(ALL.replace("kubelet hi  1.33.5", "kubelet hi  1.33.50"), "\n".join(PACKAGES), packages="system")
    assert change.actions == ()
    assert change.why == "kubelet is 1.33.50-1.1"
    assert "`mlops site upgrade` brings all nodes there, the control plane first" in change.by_hand
