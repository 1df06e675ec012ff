"""GPUs as a pure step: what the machine says in, what is still to be done out. No test of these has a GPU."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

import pytest

from configs.kubernetes import Kubernetes
from infra.kubeadm.configuration import sandbox_image
from infra.machines.commands import File
from infra.site.facts import Fact, Reading
from infra.site.gpu import DRIVER, GPU, KEYRING, PACKAGES, gpu_step
from infra.site.reading import file_fact, packages_fact, unit_fact
from infra.site.runtime import CONFIGURATION, TOOLKIT, UNIT, containerd_configuration, runtime_step
from infra.site.step import Change, Step

CARD = "0000:01:00.0 0x2684\n"
RUNS = Reading(0, "LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nNeedDaemonReload=no\nMarked=1\n")


def found(card: str, *, packages: str = "nvidia", **known: Reading) -> list[Change]:
    step = gpu_step("one", Kubernetes.model_validate({"version": "1.33.5", "gpu_packages": packages}), ())
    named: dict[str, Fact] = {"driver": DRIVER, "installed": packages_fact(PACKAGES), "unit": unit_fact(UNIT)}
    readings = {GPU: Reading(0, card)} | {named[name]: reading for name, reading in known.items()}
    return list(step.changes({fact: readings.get(fact, Reading(1)) for fact in step.facts}))


def test_without_a_gpu_nothing_is_done() -> None:
    assert found("") == []


def test_a_gpu_without_a_driver_is_told() -> None:
    (change,) = found(CARD)
    assert change.actions == ()
    assert "0000:01:00.0" in change.why
    assert "nvidia-driver" in change.by_hand
    assert "`gpu: false` of one" in change.by_hand


def test_the_toolkit_is_installed_and_containerd_told() -> None:
    key, sources, install, write, restart = found(CARD, driver=Reading(0, "NVRM"), unit=RUNS)
    assert key.what == f"write {KEYRING}"
    assert install.what == "install nvidia-container-toolkit"
    (file,) = (item for item in write.actions if isinstance(item, File))
    runtimes = tomllib.loads(file.text)["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
    assert runtimes["nvidia"]["options"] == {
        "BinaryName": "/usr/bin/nvidia-container-runtime",
        "SystemdCgroup": True,
    }
    assert set(runtimes) == {"runc", "nvidia"}
    assert restart.what.startswith(f"start {UNIT}")
    (file,) = (item for item in sources.actions if isinstance(item, File))
    assert f"Signed-By: {KEYRING}\n" in file.text


def test_packages_of_the_machines_own_sources_need_no_key() -> None:
    changes = found(CARD, packages="system", driver=Reading(0), unit=RUNS)
    assert changes[0].what == "install nvidia-container-toolkit"


@pytest.mark.parametrize("images", [None, "registry:5000/kubernetes"])
def test_the_runtime_step_writes_the_same_file(images: str | None) -> None:
    described = Kubernetes.model_validate({"version": "1.34.2", "images": images})
    sandbox = sandbox_image(described.version, described.images)
    runtime = runtime_step("one", {}, (), sandbox=sandbox)
    gpu = gpu_step("one", described, ())
    assert file_fact(File(CONFIGURATION, "")) in runtime.facts
    (here,) = configurations(runtime, {TOOLKIT: Reading(0)})
    (there,) = configurations(gpu, {GPU: Reading(0, CARD), DRIVER: Reading(0), unit_fact(UNIT): RUNS})
    assert here == there == containerd_configuration(nvidia=True, sandbox=sandbox)


def configurations(step: Step, known: Mapping[Fact, Reading]) -> list[str]:
    """Return what a step writes as containerd's configuration."""
    readings = {fact: known.get(fact, Reading(1)) for fact in step.facts}
    actions = [action for change in step.changes(readings) for action in change.actions]
    return [item.text for item in actions if isinstance(item, File) and item.path == CONFIGURATION]
