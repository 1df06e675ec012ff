"""The VMs of a site's file, with the keys that are made for them here, and the driver that each host runs them by."""

from __future__ import annotations

from pathlib import Path

from configs.machines import Host, Network, Vm, VmImage
from configs.site import Site
from infra.machines.host_keys import pin, pinned_keys
from infra.machines.ssh import make_key
from infra.site.inventory import site_folder
from infra.vms.driver import Driver
from infra.vms.image import image_path
from infra.vms.libvirt import Libvirt
from infra.vms.machine import VirtualMachine, mac_of
from infra.vms.qemu import Qemu
from infra.vms.virtualbox import VirtualBox


def driver_of(host: Host) -> Driver | None:
    """Return what runs the VMs of a host; None: nothing, so they have to be there already."""
    drivers: dict[str, Driver] = {
        "qemu": Qemu(host.accelerator),
        "libvirt": Libvirt(host.accelerator),
        "virtualbox": VirtualBox(),
    }
    return drivers[host.vms] if host.vms else None


def vms_of(site: Site, home: Path) -> dict[str, VirtualMachine]:
    """Return the VMs that the site makes itself, by name.

    Keys are made where there are none yet: ours, and for each VM that of its ssh server, which is pinned at once: a
    machine that shows another one is not let in, not even the first time.

    Args:
        home: the checkout's state folder.
    """
    found: dict[str, VirtualMachine] = {}
    for name, vm in site.vms.items():
        host = site.hosts[vm.host]
        if driver_of(host) is not None and site.network is not None and site.vm_image is not None:
            found[name] = _machine(name, vm, host, site.network, site.vm_image, site_folder(home))
    return found


def _machine(name: str, vm: Vm, host: Host, network: Network, image: VmImage, folder: Path) -> VirtualMachine:
    host_key = folder / "host-keys" / name
    public = make_key(host_key, name)
    if pinned_keys(folder, name) != [" ".join(public.split()[:2])]:
        pin(folder, name, [public])
    return VirtualMachine(
        name=name,
        host=vm.host,
        mac=vm.mac or mac_of(name),
        address=str(vm.address),
        prefix=network.cidr.prefixlen,
        gateway=str(network.gateway),
        nameservers=tuple(str(address) for address in network.nameservers or (network.gateway,)),
        memory_mb=vm.memory_mb,
        cpus=vm.cpus,
        disk_gb=vm.disk_gb,
        bridge=host.bridge or "",
        image=image_path(image),
        user_key=make_key(folder / "id_ed25519", "mlops"),
        host_key=host_key.read_text(encoding="ascii"),
        host_key_public=public,
    )
