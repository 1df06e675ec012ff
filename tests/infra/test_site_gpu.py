"""GPUs as a pure step: what the machine says in, what is still to be done out. No test of these has a GPU."""

from __future__ import annotations

import subprocess
import tomllib

from configs.kubernetes import Kubernetes
from infra.machines.commands import File
from infra.site.facts import Fact, Reading
from infra.site.reading import file_fact, packages_fact, unit_fact
from infra.site.step import Change
from infra.site.steps.gpu import DRIVER, GPU, KEYRING, PACKAGES, gpu_step
from infra.site.steps.runtime import CONFIGURATION, TOOLKIT, UNIT, containerd_configuration, runtime_step

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
    found_there = tomllib.loads(file.text)["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]
    assert found_there["default_runtime_name"] == "nvidia"
    runtimes = found_there["runtimes"]
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


def test_the_runtime_step_writes_the_same_file() -> None:
    step = runtime_step("one", {}, ())
    readings = {fact: Reading(1) for fact in step.facts} | {TOOLKIT: Reading(0)}
    texts = [
        action.text
        for change in step.changes(readings)
        for action in change.actions
        if isinstance(action, File) and action.path == CONFIGURATION
    ]
    assert texts == [containerd_configuration(nvidia=True)]
    assert file_fact(File(CONFIGURATION, "")) in step.facts


def test_the_fact_is_a_script_that_a_shell_can_read() -> None:
    done = subprocess.run(GPU.argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""
