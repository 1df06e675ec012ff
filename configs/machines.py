"""Sections ``network``, ``hosts`` and ``vms`` of the site: the machines a team has, and what each of them is for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from configs.loading import Keys, Mistake, Section

Role = Literal["storage", "registry", "control-plane", "worker"]
Driver = Literal["virtualbox", "libvirt", "qemu"]
Accelerator = Literal["kvm", "tcg"]

HOSTNAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""One label of RFC 1123, in lower case as Kubernetes wants its nodes' names."""
HOST_RESERVE_MB = 2048
"""What a host keeps for itself beside its VMs."""
CONTROL_PLANE_CPUS, CONTROL_PLANE_MB = 2, 2048
"""Below these ``kubeadm init`` refuses, or the API server is killed for memory."""

Hostname = Annotated[str, Field(pattern=HOSTNAME)]


def _unicast(mac: str) -> str:
    if int(mac[:2], 16) & 1:
        raise ValueError("the first byte of a machine's MAC is even, as in 52:54:00:12:34:56; an odd one is multicast")
    return mac.lower()


def _labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        prefix, slash, name = key.rpartition("/")
        if not re.fullmatch(_NAME, name) or (slash and not re.fullmatch(_PREFIX, prefix)):
            raise ValueError(f"{key!r} is no label: write it as rack, or as example.org/rack")
        if re.search(r"(^|\.)(kubernetes|k8s)\.io$", prefix):
            raise ValueError(f"{key} is a label of Kubernetes' own, which it gives itself")
        if value and not re.fullmatch(_NAME, value):
            raise ValueError(f"{value!r} of {key}: letters, digits, `-`, `_` and `.`, at most 63, or empty")
    return labels


_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_PREFIX = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
Labels = Annotated[dict[str, str], AfterValidator(_labels)]
"""Labels of a node: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/."""

Mac = Annotated[str, Field(pattern=r"^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$"), AfterValidator(_unicast)]


class Network(Section):
    """The network that all machines are in, and the two that Kubernetes makes of its own."""

    cidr: IPv4Network = Field(description="as 192.168.10.0/24")
    gateway: IPv4Address
    nameservers: tuple[IPv4Address, ...] = Field((), description="left out: the gateway")
    pods: IPv4Network = Field(IPv4Network("10.244.0.0/16"), description="addresses of pods; Flannel's default")
    services: IPv4Network = Field(IPv4Network("10.96.0.0/12"), description="addresses of services; kubeadm's default")


class Ssh(Section):
    """How a host is logged in to. A password is no way in: keys only."""

    user: str = Field("root", pattern=r"^[a-z_][a-z0-9_-]{0,31}$", description="root, or one whom sudo asks nothing")
    port: int = Field(22, ge=1, le=65535)
    key: Path = Field(Path("~/.ssh/id_ed25519"), description="the private key")


class Host(Section):
    """A machine that is there already: it runs VMs, or has roles itself, or both."""

    address: IPv4Address
    ssh: Ssh = Ssh()
    vms: Driver | None = Field(None, description="what runs the VMs of this host; left out: it runs none")
    bridge: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.@:-]{1,15}$",
        description="what its VMs are bridged to: of virtualbox a network card of the host, else a bridge that it has",
    )
    accelerator: Accelerator = Field(
        "kvm", description="of libvirt and qemu; tcg: no processor's help is needed, and all is some ten times slower"
    )
    memory_mb: int | None = Field(None, ge=512, description="left out: nobody checks the sum of its VMs")
    roles: tuple[Role, ...] = ()
    labels: Labels = Field(default_factory=dict, description="of its node, by which runs choose it")
    gpu: bool = Field(True, description="false: an NVIDIA GPU of its own is not for pods")


class VmImage(Section):
    """The image that all VMs begin as: Ubuntu 22.04 or newer, or Debian 12 or newer, with cloud-init."""

    url: str | None = Field(None, pattern=r"^https?://[^\s@]+$", description="where hosts download it")
    file: str | None = Field(None, pattern=r"^/\S+$", description="or its path on every host that runs VMs")
    sha256: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{64}$"), AfterValidator(str.lower)] = Field(
        description="as its publisher's SHA256SUMS says"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.url is None) == (self.file is None):
            raise ValueError("give one of `url:` and `file:`")
        return self

    @property
    def source(self) -> str:
        """Return its address, or its path, which begins with a slash."""
        return self.url or self.file or ""


class Vm(Section):
    """A virtual machine on one of the hosts."""

    host: str
    address: IPv4Address
    mac: Mac | None = Field(None, description="left out: made from the name")
    memory_mb: int = Field(ge=512)
    disk_gb: int = Field(ge=5)
    cpus: int = Field(ge=1)
    roles: tuple[Role, ...] = ()
    labels: Labels = Field(default_factory=dict, description="of its node, by which runs choose it")


_SECTIONS: dict[str, TypeAdapter[Any]] = {"hosts": TypeAdapter(Host), "vms": TypeAdapter(Vm)}


def machine_mistakes(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield what is wrong between the machines of a file, however much else of the file is wrong.

    Args:
        values: the whole file as YAML gave it. An entry that is wrong in itself is reported by its own model; it is
            left out here.
    """
    hosts: dict[str, Host] = _readable(values, "hosts")
    vms: dict[str, Vm] = _readable(values, "vms")
    yield from _network_mistakes(values, hosts, vms)
    yield from _address_mistakes(values, hosts, vms)
    yield from _host_mistakes(_names(values, "hosts"), hosts, vms)
    if vms and "vm_image" not in values:
        yield Mistake(("vm_image",), "is missing", "add `vm_image:` with `url:` or `file:`, and `sha256:`")
    if hosts or vms:
        whole = len(hosts) + len(vms) == len(_names(values, "hosts")) + len(_names(values, "vms"))
        yield from _role_mistakes(hosts, vms, whole=whole)


def _readable(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _names(values, section):
        try:
            found[name] = _SECTIONS[section].validate_python(values[section][name])
        except ValidationError:
            continue
    return found


def _names(values: Mapping[str, Any], section: str) -> list[str]:
    entries = values.get(section)
    return [name for name in entries if isinstance(name, str)] if isinstance(entries, dict) else []


def _network_mistakes(values: Mapping[str, Any], hosts: Mapping[str, Host], vms: Mapping[str, Vm]) -> Iterator[Mistake]:
    if "network" not in values:
        if hosts or vms:
            yield Mistake(("network",), "is missing", "add `network:` with `cidr:` and `gateway:` of the machines")
        return
    try:
        network = Network.model_validate(values["network"])
    except ValidationError:
        return
    if network.gateway not in network.cidr:
        yield Mistake(("network", "gateway"), f"is not in {network.cidr}", "an address of the machines' own network")
    ranges = {"cidr": network.cidr, "pods": network.pods, "services": network.services}
    for first, second in (("pods", "cidr"), ("services", "cidr"), ("services", "pods")):
        if ranges[first].overlaps(ranges[second]):
            what = f"{ranges[first]} overlaps with {second}, {ranges[second]}"
            where: Keys = ("network", first if first in values["network"] else second)
            yield Mistake(where, what, "three networks that have no address in common")
    unusable = {
        network.cidr.network_address: "is the network's own address",
        network.cidr.broadcast_address: "is the network's broadcast address",
        network.gateway: "is the gateway's",
    }
    for keys, address in _addresses(hosts, vms):
        if address not in network.cidr:
            yield Mistake(keys, f"{address} is not in network.cidr, {network.cidr}", "one address of that network")
        elif address in unusable:
            yield Mistake(keys, f"{address} {unusable[address]}", f"another address of {network.cidr}")


def _address_mistakes(values: Mapping[str, Any], hosts: Mapping[str, Host], vms: Mapping[str, Vm]) -> Iterator[Mistake]:
    owners: dict[object, Keys] = {}
    macs = [(("vms", name, "mac"), vm.mac) for name, vm in vms.items() if vm.mac is not None]
    for keys, value in (*_addresses(hosts, vms), *macs):
        if value in owners:
            yield Mistake(keys, f"{value} is that of {owners[value][1]} as well", "one machine, one address")
        owners.setdefault(value, keys)
    for name in _names(values, "vms"):
        if name in _names(values, "hosts"):
            yield Mistake(("vms", name), "is the name of a host as well", "one name for each machine")


def _addresses(hosts: Mapping[str, Host], vms: Mapping[str, Vm]) -> Iterable[tuple[Keys, IPv4Address]]:
    yield from ((("hosts", name, "address"), host.address) for name, host in hosts.items())
    yield from ((("vms", name, "address"), vm.address) for name, vm in vms.items())


def _host_mistakes(named: list[str], hosts: Mapping[str, Host], vms: Mapping[str, Vm]) -> Iterator[Mistake]:
    for name, vm in vms.items():
        host = hosts.get(vm.host)
        if vm.host not in named:
            there = f"hosts there: {', '.join(named)}" if named else "add it under `hosts:`"
            yield Mistake(("vms", name, "host"), f"{vm.host!r} is no host", there)
        elif host is not None and host.vms is None:
            what = f"{vm.host} says of no driver that runs VMs"
            yield Mistake(("vms", name, "host"), what, f"give hosts.{vm.host} `vms: virtualbox`, `libvirt` or `qemu`")
    for name, host in hosts.items():
        wanted = sum(vm.memory_mb for vm in vms.values() if vm.host == name)
        if wanted and host.vms is not None and host.bridge is None:
            what = "is missing: what its VMs are bridged to"
            yield Mistake(("hosts", name, "bridge"), what, "add `bridge:` with the host's interface in that network")
        if wanted and host.memory_mb is not None and wanted + HOST_RESERVE_MB > host.memory_mb:
            what = f"{host.memory_mb} MB are fewer than the {wanted} of its VMs and {HOST_RESERVE_MB} of its own"
            yield Mistake(("hosts", name, "memory_mb"), what, "give VMs less memory, or move one to another host")


def _role_mistakes(hosts: Mapping[str, Host], vms: Mapping[str, Vm], *, whole: bool) -> Iterator[Mistake]:
    holders: dict[str, list[Keys]] = {}
    machines: list[tuple[str, str, Host | Vm]] = [("hosts", name, host) for name, host in hosts.items()]
    machines += [("vms", name, vm) for name, vm in vms.items()]
    for section, name, machine in machines:
        for index, role in enumerate(machine.roles):
            if role in machine.roles[:index]:
                yield Mistake((section, name, "roles"), f"names {role} twice", "each role once")
                continue
            holders.setdefault(role, []).append((section, name, "roles"))
        if isinstance(machine, Vm) and "control-plane" in machine.roles:
            if machine.cpus < CONTROL_PLANE_CPUS:
                what = f"{machine.cpus} is too few for a control plane"
                yield Mistake((section, name, "cpus"), what, f"{CONTROL_PLANE_CPUS} or more")
            if machine.memory_mb < CONTROL_PLANE_MB:
                what = f"{machine.memory_mb} MB are too few for a control plane"
                yield Mistake((section, name, "memory_mb"), what, f"{CONTROL_PLANE_MB} or more")
    for role in ("control-plane", "storage", "registry"):
        for keys in holders.get(role, [])[1:]:
            what = f"makes {keys[1]} a second {role}, beside {holders[role][0][1]}"
            yield Mistake(keys, what, f"one machine of the site is its {role}")
    if whole and "worker" in holders and "control-plane" not in holders:
        yield Mistake(holders["worker"][0], "is a worker of no cluster", "give one machine `roles: [control-plane]`")
