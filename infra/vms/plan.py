"""Steps of a site's virtual machines: the image on each host, then each VM made and started, then ready."""

from __future__ import annotations

from pathlib import Path

from configs.site import Site
from infra.site.step import Step
from infra.vms.ensure import pending_step, vm_step
from infra.vms.image import image_step
from infra.vms.inventory import driver_of, vms_of
from infra.vms.ready import BOOTS_S, EMULATED_S, ready_step


def vm_steps(site: Site, home: Path) -> list[Step]:
    """Return the steps ``image`` of hosts and ``vm``, ``ready`` and ``pending`` of VMs; none where hosts run none.

    Args:
        home: the checkout's state folder.
    """
    steps: list[Step] = []
    machines = vms_of(site, home)
    for name in dict.fromkeys(vm.host for vm in machines.values()):
        driver = driver_of(site.hosts[name])
        if driver is None or site.vm_image is None:
            continue
        boots_s = EMULATED_S if site.hosts[name].accelerator == "tcg" else BOOTS_S
        steps.append(image_step(name, site.vm_image, driver, ((name, "base"),)))
        for vm in machines.values():
            if vm.host == name:
                steps.append(vm_step(vm, driver, ((name, "image"),)))
                steps.append(ready_step(vm.name, ((vm.name, "vm"),), boots_s))
                steps.append(pending_step(vm, driver, ((vm.name, "ready"),)))
    return steps
