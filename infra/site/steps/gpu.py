"""Step ``gpu``: where a worker has an NVIDIA GPU and its driver, containers get at it: the toolkit, and a runtime.

The driver itself is a person's to install: it has to fit the card, the kernel and the machine's secure boot. Source:
https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from configs.kubernetes import Kubernetes
from infra.machines.commands import File
from infra.site.facts import Fact, Facts
from infra.site.reading import (
    fetch_key,
    file_changes,
    file_fact,
    package_changes,
    packages_fact,
    unit_changes,
    unit_fact,
)
from infra.site.step import Change, Step
from infra.site.steps.runtime import CONFIGURATION, UNIT, containerd_configuration

PACKAGES = ("nvidia-container-toolkit",)
KEYRING = PurePosixPath("/etc/apt/keyrings/mlops-nvidia.asc")
_SITE = "https://nvidia.github.io/libnvidia-container"
_SOURCES = File(
    PurePosixPath("/etc/apt/sources.list.d/mlops-nvidia.sources"),
    f"""\
# Rendered for this site: changes here are lost.
Types: deb
URIs: {_SITE}/stable/deb/$(ARCH)
Suites: /
Signed-By: {KEYRING}
""",
)
# Vendor NVIDIA, class "display controller": VGA (0x0300..) as well as 3D (0x0302..). lspci may not be there.
GPU = Fact(
    (
        "sh",
        "-c",
        "for at in /sys/bus/pci/devices/*; do"
        ' [ "$(cat "$at/vendor" 2>/dev/null)" = 0x10de ] || continue;'
        ' case "$(cat "$at/class")" in 0x03*) echo "${at##*/} $(cat "$at/device")";; esac; done',
    )
)
DRIVER = Fact(("cat", "/proc/driver/nvidia/version"))
"""There while the kernel has the driver's module loaded."""
_KEY = Fact(("grep", "--quiet", "BEGIN PGP PUBLIC KEY BLOCK", str(KEYRING)))


def has_gpu(facts: Facts) -> bool:
    """Whether the machine has an NVIDIA GPU; :data:`GPU` must have been read."""
    return facts[GPU].ok and bool(facts[GPU].text.strip())


def gpu_step(machine: str, wanted: Kubernetes, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step for ``machine``; without a GPU it changes nothing."""
    community = wanted.gpu_packages == "nvidia"
    configuration = File(CONFIGURATION, containerd_configuration(nvidia=True))

    def changes(facts: Facts) -> Iterator[Change]:
        if not has_gpu(facts):
            return
        if not facts[DRIVER].ok:
            cards = ", ".join(facts[GPU].text.splitlines())
            yield Change(
                "load the GPU's driver",
                f"there is an NVIDIA GPU ({cards}), and no driver of it is loaded",
                by_hand="install it and start the machine again: on Debian `apt install nvidia-driver` (non-free), on "
                "Ubuntu `ubuntu-drivers install --gpgpu`; with secure boot its key has to be enrolled. Or leave "
                f"it alone: `gpu: false` of {machine} in the site's file",
            )
            return
        if community and not facts[_KEY].ok:
            yield Change(
                f"write {KEYRING}", "the key of NVIDIA's packages is not there", fetch_key(KEYRING, f"{_SITE}/gpgkey")
            )
        if community:
            yield from file_changes(_SOURCES, facts)
        yield from package_changes(PACKAGES, facts)
        changed = file_changes(configuration, facts, restarts=(UNIT,))
        yield from changed
        yield from unit_changes(UNIT, facts, changed=bool(changed))

    facts = (GPU, DRIVER, packages_fact(PACKAGES), file_fact(configuration), unit_fact(UNIT))
    return Step("gpu", machine, (*facts, *((_KEY, file_fact(_SOURCES)) if community else ())), changes, after)
