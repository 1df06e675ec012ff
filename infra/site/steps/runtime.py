"""Step ``runtime``: a machine's kernel and its containerd, as kubelet needs them, and the way to the site's registry.

Configuration: https://github.com/containerd/containerd/blob/main/docs/cri/config.md, version 2, which containerd 1.6 of
Debian 12 reads as it is and containerd 2 translates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from infra.machines.commands import Command, File
from infra.site.facts import Fact, Facts
from infra.site.reading import (
    file_changes,
    file_fact,
    package_changes,
    packages_fact,
    unit_changes,
    unit_fact,
)
from infra.site.step import Change, Step
from infra.site.steps.kernel import kernel_changes, kernel_facts

# kubelet mounts, limits and inspects by these.
PACKAGES = ("containerd", "conntrack", "ethtool", "iptables", "kmod", "mount", "socat")
UNIT = "containerd.service"
IMAGES, PAUSE = "registry.k8s.io", "pause:3.10"
"""Where Kubernetes' images are, and what kubeadm 1.31 to 1.33 names as the sandbox's; another would be a second one."""
CONFIGURATION = PurePosixPath("/etc/containerd/config.toml")
TOOLKIT = Fact(("test", "-x", "/usr/bin/nvidia-container-runtime"))
"""Whether nvidia-container-toolkit is there, which :mod:`infra.site.steps.gpu` installs."""
_ANSWERS = Fact(("ctr", "--connect-timeout", "5s", "version"))

_TEXT = """\
# Rendered for this site: changes here are lost.
version = 2

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images}/{pause}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

# One owner of control groups: two, kubelet's and systemd's, disagree about a node's memory when it is short.
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"

# Registries, their addresses and CAs: read at every pull.
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
"""
# As `nvidia-ctk runtime configure --runtime=containerd --set-as-default` would write it, but into this one file:
# containerd 1.6 takes a section of a file that it imports in the place of the whole section here. The default, since a
# pod that asks for nvidia.com/gpu need not name a RuntimeClass anywhere else; for those that do not ask it is runc.
_NVIDIA = """\

[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "nvidia"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
  BinaryName = "/usr/bin/nvidia-container-runtime"
  SystemdCgroup = true
"""


def containerd_configuration(*, nvidia: bool, images: str | None = None) -> str:
    """Return containerd's configuration.

    Args:
        nvidia: with a second runtime, ``nvidia``, by which containers get at the GPUs that they were given.
        images: registry and prefix of the sandbox's image; None: where Kubernetes has it.
    """
    return _TEXT.format(images=images or IMAGES, pause=PAUSE) + (_NVIDIA if nvidia else "")


def runtime_step(
    machine: str,
    registry_files: Mapping[PurePosixPath, str],
    after: tuple[tuple[str, str], ...],
    *,
    images: str | None = None,
    logged_in: bool = False,
) -> Step:
    """Return the step that makes ``machine`` run containers.

    Args:
        registry_files: of :func:`infra.registry.containerd.containerd_files`; empty without a registry.
        images: registry and prefix of the sandbox's image; None: where Kubernetes has it.
        logged_in: those files hold a login.
    """
    mode = 0o600 if logged_in else 0o644
    files = tuple(File(path, text, mode, secret=logged_in) for path, text in registry_files.items())

    def changes(facts: Facts) -> Iterator[Change]:
        yield from kernel_changes(facts)
        yield from package_changes(PACKAGES, facts)
        text = containerd_configuration(nvidia=facts[TOOLKIT].ok, images=images)
        changed = file_changes(File(CONFIGURATION, text), facts, restarts=(UNIT,))
        yield from changed
        for file in files:
            yield from file_changes(file, facts)
        started = unit_changes(UNIT, facts, changed=bool(changed))
        yield from started
        if not started and not facts[_ANSWERS].ok:
            restart = Command(("systemctl", "restart", UNIT))
            yield Change(f"restart {UNIT}", f"does not answer: {' '.join(facts[_ANSWERS].text.split())}", (restart,))

    facts = (
        *kernel_facts(),
        packages_fact(PACKAGES),
        TOOLKIT,
        file_fact(File(CONFIGURATION, "")),
        *map(file_fact, files),
        unit_fact(UNIT),
        _ANSWERS,
    )
    return Step("runtime", machine, facts, changes, after)
