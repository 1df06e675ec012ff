"""Section ``kubernetes`` of the site: which Kubernetes its machines are to be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from configs.loading import Mistake, Section
from configs.machines import Hostname
from configs.registry import PREFIX, Registry

OLDEST = (1, 31)
"""The first minor version that reads kubeadm's v1beta4."""


Addon = Literal["metrics-server", "dashboard", "gpu"]


def check_version(text: str) -> str:
    """Return a release as it is, as 1.33.5.

    Raises:
        ValueError: it is none, or too old.
    """
    found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", text)
    if not found:
        raise ValueError("name one release, as 1.33.5: two machines of different patches are hard to tell apart later")
    if (int(found[1]), int(found[2])) < OLDEST:
        raise ValueError(f"{OLDEST[0]}.{OLDEST[1]} or newer: older ones do not read kubeadm's v1beta4")
    return text


class NamedManifest(Section):
    """Objects of somebody else's project, in a file that was downloaded and looked at."""

    manifest: Path = Field(description="the YAML file, relative to the checkout")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the file: `sha256sum FILE`; another one is refused")


class Snapshots(Section):
    """Snapshots of etcd: how often, and how many of them stay on the share."""

    every_hours: Literal[1, 2, 3, 4, 6, 8, 12, 24] = Field(6, description="hours between two, counted from midnight")
    keep: int = Field(28, ge=2, le=1000, description="how many stay; older ones are removed")


def _prefix(text: str) -> str:
    if not re.fullmatch(PREFIX, text):
        raise ValueError("write registry and prefix, as registry.example.org:5000/kubernetes, without https://")
    return text


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    fixed = [name for name in ("apiVersion", "kind", "cgroupDriver") if name in values]
    if fixed:
        raise ValueError(f"leave {', '.join(fixed)} out: what is written here is fixed, or containerd's as well")
    return values


Settings = Annotated[dict[str, Any], AfterValidator(_settings)]


class Kubernetes(Section):
    """Which Kubernetes, under which name, and from where; its networks' addresses are in section ``network``."""

    version: Annotated[str, AfterValidator(check_version)] = Field(description="one release, as 1.33.5")
    endpoint: Hostname = Field(
        "cluster", description="the control plane's name on all machines: its address may change, its name does not"
    )
    packages: Literal["community", "system"] = Field(
        "community",
        description="where kubelet, kubeadm and kubectl come from: the project's own repository, or what the machines' "
        "package sources offer already, as a mirror",
    )
    network: Literal["flannel", "none"] | NamedManifest = Field(
        "flannel",
        description="the network of pods; one with network policies, as Calico, by its own manifest; none: somebody "
        "else brings one",
    )
    addons: tuple[Addon, ...] = Field(
        ("metrics-server", "dashboard", "gpu"),
        description="what the cluster carries; `gpu` does nothing where no worker has an NVIDIA GPU",
    )
    gpu_packages: Literal["nvidia", "system"] = Field(
        "nvidia", description="where nvidia-container-toolkit comes from: NVIDIA's repository, or what machines have"
    )
    csi_smb: NamedManifest | None = Field(
        None, description="csi-driver-smb, by which pods mount the share; left out: every worker mounts it itself"
    )
    snapshots: Snapshots = Snapshots()
    images: Annotated[str, AfterValidator(_prefix)] | None = Field(
        None,
        description="registry and prefix that hold copies of all images of the control plane, the pod network and the "
        "sandbox, as registry:5000/kubernetes; `mlops site images` names them. Left out: where their projects put them",
    )
    kubelet: Settings = Field(default_factory=dict, description="keys of KubeletConfiguration, for all nodes")
    kube_proxy: Settings = Field(default_factory=dict, description="keys of KubeProxyConfiguration")
    ignore_preflight: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")], ...] = Field(
        (), description="checks of kubeadm that may fail on these machines, by the names it shows"
    )

    def images_in(self, registry: Registry | None) -> bool:
        """Return whether its images are in the site's own registry, by whose CA and login they are pulled."""
        address = registry.address if registry else None
        return self.images is not None and self.images.partition("/")[0] == address


def kubernetes_mistakes(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield what is wrong between the section and the machines.

    Args:
        values: the whole file as YAML gave it.
    """
    section = values.get("kubernetes")
    if not isinstance(section, dict):
        return
    machines = {
        str(name): entry.get("roles") or ()
        for kind in ("hosts", "vms")
        for name, entry in (values.get(kind) or {}).items()
        if isinstance(entry, dict)
    }
    yield from _label_mistakes(values)
    endpoint = section.get("endpoint", "cluster")
    if endpoint in machines:
        what = f"is the name of machine {endpoint} as well, which would have to move with the control plane"
        yield Mistake(("kubernetes", "endpoint"), what, "give the control plane a name of its own, as `cluster`")
    if not any("control-plane" in roles for roles in machines.values()):
        what = "is asked for, and no machine is its control plane"
        yield Mistake(("kubernetes",), what, "give one machine `roles: [control-plane]`")


def _label_mistakes(values: Mapping[str, Any]) -> Iterator[Mistake]:
    for kind in ("hosts", "vms"):
        for name, entry in (values.get(kind) or {}).items():
            if not isinstance(entry, dict) or not entry.get("labels"):
                continue
            if not {"worker", "control-plane"} & set(entry.get("roles") or ()):
                what = f"are of a node, and {name} is none"
                yield Mistake((kind, str(name), "labels"), what, "give it `roles: [worker]`, or leave the labels out")
