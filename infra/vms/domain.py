"""A VM as libvirt's domain: its XML rendered, read and amended. Pure.

Format: https://libvirt.org/formatdomain.html.
"""

from __future__ import annotations

import uuid
from pathlib import PurePosixPath

# What is parsed is libvirt's own answer to root.
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from configs.machines import Accelerator
from infra.vms.machine import VirtualMachine

TITLE = "made by mlops for the site: change it in the site's file"
DISK, SEED = "vda", "vdb"

_NAMESPACE = uuid.UUID("b1d4a6c2-6a35-5d0e-9a53-6d6c6f707300")
_TYPES: dict[Accelerator, str] = {"kvm": "kvm", "tcg": "qemu"}
# Without a processor's help the newer instructions cost more than they save.
_PROCESSORS: dict[Accelerator, str] = {
    "kvm": '<cpu mode="host-passthrough"/>',
    "tcg": '<cpu mode="custom" match="exact" check="none"><model fallback="forbid">Nehalem</model></cpu>',
}
_BYTES = {"KiB": 2**10, "MiB": 2**20}


def domain_uuid(name: str) -> str:
    """Return the id by which our VM is told from another one of its name."""
    return str(uuid.uuid5(_NAMESPACE, name))


def render_domain(vm: VirtualMachine, disk: PurePosixPath, accelerator: Accelerator) -> str:
    """Return the XML of a VM that libvirt does not know yet; what it leaves out libvirt chooses."""
    domain = _parse(f"""\
<domain>
  <name>{vm.name}</name>
  <uuid>{domain_uuid(vm.name)}</uuid>
  <title>{TITLE}</title>
  <os><type arch="x86_64" machine="q35">hvm</type><boot dev="hd"/></os>
  <features><acpi/><apic/></features>
  <clock offset="utc"/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>restart</on_crash>
  <devices>
    <serial type="pty"/>
    <console type="pty"/>
    <rng model="virtio"><backend model="random">/dev/urandom</backend></rng>
  </devices>
</domain>""")
    return _amend(domain, vm, disk, accelerator)


def amend_domain(found: str, vm: VirtualMachine, disk: PurePosixPath, accelerator: Accelerator) -> str:
    """Return a VM's XML with what the site says of it; all else, such as more disks, stays as it is.

    Raises:
        ValueError: it is no XML.
    """
    return _amend(_parse(found), vm, disk, accelerator)


def read_domain(text: str) -> dict[str, str]:
    """Return what the site has a say in, in words for people, and the domain's ``uuid``.

    Raises:
        ValueError: it is no XML.
    """
    domain = _parse(text)
    card = domain.find("devices/interface")
    return {
        "uuid": domain.findtext("uuid", ""),
        "type": domain.get("type", ""),
        "memory": f"{_memory(domain) >> 20} MiB",
        "number of CPUs": domain.findtext("vcpu", ""),
        "disk": _attribute(_disk(domain, DISK), "source", "file"),
        "seed": _attribute(_disk(domain, SEED), "source", "file"),
        "bridge": _attribute(card, "source", "bridge"),
        "MAC": _attribute(card, "mac", "address"),
        "card": _attribute(card, "model", "type"),
    }


def _amend(domain: Element, vm: VirtualMachine, disk: PurePosixPath, accelerator: Accelerator) -> str:
    if domain.get("type") != _TYPES[accelerator]:
        domain.set("type", _TYPES[accelerator])
        _drop(domain, "cpu")
        domain.append(_parse(_PROCESSORS[accelerator]))
    if _memory(domain) != vm.memory_mb << 20:
        _drop(domain, "memory")
        _drop(domain, "currentMemory")
        SubElement(domain, "memory", unit="MiB").text = str(vm.memory_mb)
    if domain.findtext("vcpu") != str(vm.cpus):
        _drop(domain, "vcpu")
        SubElement(domain, "vcpu").text = str(vm.cpus)
    devices = domain.find("devices")
    if devices is None:
        devices = SubElement(domain, "devices")
    source = PurePosixPath(_attribute(_disk(domain, DISK), "source", "file"))
    # Another file of its folder is a snapshot of its disk: without it, what was written since would be lost.
    if source.parent != vm.folder:
        _put_disk(domain, devices, DISK, disk, "qcow2")
    if _attribute(_disk(domain, SEED), "source", "file") != str(vm.seed):
        # Virtio, too: kernels that are made for clouds know no CD drive.
        SubElement(_put_disk(domain, devices, SEED, vm.seed, "raw"), "readonly")
    _amend_card(devices, vm)
    return ElementTree.tostring(domain, encoding="unicode")


def _put_disk(domain: Element, devices: Element, target: str, path: PurePosixPath, form: str) -> Element:
    present = _disk(domain, target)
    if present is not None:
        devices.remove(present)
    disk = SubElement(devices, "disk", type="file", device="disk")
    SubElement(disk, "driver", name="qemu", type=form)
    SubElement(disk, "source", file=str(path))
    SubElement(disk, "target", dev=target, bus="virtio")
    return disk


def _amend_card(devices: Element, vm: VirtualMachine) -> None:
    """Change the first network card, which keeps its place on the bus."""
    card = devices.find("interface")
    if card is None:
        card = SubElement(devices, "interface")
    card.set("type", "bridge")
    for name, attribute, value in (
        ("mac", "address", vm.mac),
        ("source", "bridge", vm.bridge),
        ("model", "type", "virtio"),
    ):
        if _attribute(card, name, attribute) != value:
            _drop(card, name)
            SubElement(card, name, {attribute: value})


def _disk(domain: Element, target: str) -> Element | None:
    for disk in domain.iterfind("devices/disk"):
        if _attribute(disk, "target", "dev") == target:
            return disk
    return None


def _memory(domain: Element) -> int:
    memory = domain.find("memory")
    return 0 if memory is None else int(memory.text or 0) * _BYTES.get(memory.get("unit", "KiB"), 0)


def _attribute(parent: Element | None, child: str, name: str) -> str:
    found = None if parent is None else parent.find(child)
    return "" if found is None else found.get(name, "")


def _drop(parent: Element, name: str) -> None:
    for child in parent.findall(name):
        parent.remove(child)


def _parse(text: str) -> Element:
    try:
        return ElementTree.fromstring(text)  # noqa: S314
    except ElementTree.ParseError as error:
        raise ValueError(f"libvirt's XML cannot be read: {error}") from None
