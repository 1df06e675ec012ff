"""Kubernetes' packages as a pure step: what apt and dpkg say in, what is still to be done out."""

from __future__ import annotations

import pytest
from step_changes import fact

from configs.kubernetes import Kubernetes
from infra.machines.commands import Command, File
from infra.site.facts import Reading
from infra.site.reading import file_fact, unit_fact
from infra.site.step import Change
from infra.site.steps.control_plane import MADE, RESTORING
from infra.site.steps.kubernetes import HELD, KEYRING, PACKAGES, kubernetes_step

ALL = "".join(f"{name} hi  1.33.5-1.1\n" for name in PACKAGES)


def found(
    installed: str,
    held: str,
    *,
    key: bool = True,
    packages: str = "community",
    kubelet: str = "enabled inactive",
    made: bool = False,
    restored: bool = False,
) -> list[Change]:
    step = kubernetes_step("one", Kubernetes.model_validate({"version": "1.33.5", "packages": packages}), ())
    file, active = kubelet.split()
    readings = {fact: Reading(1) for fact in step.facts} | {
        step.facts[0]: Reading(0, installed),
        HELD: Reading(0, held),
        unit_fact("kubelet.service"): Reading(0, f"UnitFileState={file}\nActiveState={active}\n"),
        file_fact(MADE): Reading(0 if made else 1),
        file_fact(RESTORING): Reading(0 if restored else 1),
    }
    if packages == "community":
        readings[fact(step, "BEGIN PGP")] = Reading(0 if key else 1)
    return list(step.changes(readings))


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


@pytest.mark.parametrize("active", ["inactive", "failed"])
def test_a_nodes_kubelet_that_only_stopped_is_started_by_a_check_as_well(active: str) -> None:
    fine = (ALL, "\n".join(PACKAGES))
    (start,) = found(*fine, packages="system", kubelet=f"enabled {active}", made=True)
    assert start.actions == (Command(("systemctl", "start", "kubelet.service")),)
    # Whoever stops it for good, as a retired site's, has it disabled; and a restore starts it itself.
    assert found(*fine, packages="system", kubelet=f"disabled {active}", made=True) == []
    assert found(*fine, packages="system", kubelet=f"enabled {active}", made=True, restored=True) == []
    # One that ends again and again is not mended by another start, nor told to be.
    assert found(*fine, packages="system", kubelet="enabled activating", made=True) == []
