"""One VM started, stopped or destroyed by name: steps like all others, so what they do is read back."""

from __future__ import annotations

from pathlib import Path

from configs.problems import Problem, UserError
from configs.site import SITE_FILE, Site
from infra.site.facts import Facts
from infra.site.step import Change, Step
from infra.vms.driver import Driver, Power
from infra.vms.inventory import driver_of, vms_of
from infra.vms.machine import VirtualMachine


def start_step(site: Site, name: str, home: Path) -> Step:
    """Return the step that starts VM ``name``; see :func:`destroy_step` for what is raised."""
    vm, driver = _found(site, name, home)

    def changes(facts: Facts) -> list[Change]:
        power = driver.observe(vm, facts).power
        if power is Power.ABSENT:
            return [Change(f"start VM {name}", "is not there", by_hand=f"make it: `mlops site apply --machine {name}`")]
        return [] if power is Power.RUNNING else [Change(f"start VM {name}", "is off", driver.start(vm))]

    return Step("start", name, driver.facts(vm), changes, at=vm.host)


def stop_step(site: Site, name: str, home: Path) -> Step:
    """Return the step that shuts VM ``name`` down; see :func:`destroy_step` for what is raised."""
    vm, driver = _found(site, name, home)

    def changes(facts: Facts) -> list[Change]:
        running = driver.observe(vm, facts).power is Power.RUNNING
        return [Change(f"shut VM {name} down", "it runs", driver.stop(vm))] if running else []

    return Step("stop", name, driver.facts(vm), changes, at=vm.host)


def destroy_step(site: Site, name: str, home: Path) -> Step:
    """Return the step that removes VM ``name`` with its disk, whatever is on it.

    Raises:
        UserError: ``name`` is no VM of the file; hosts and what others made is never destroyed.
    """
    vm, driver = _found(site, name, home)

    def changes(facts: Facts) -> list[Change]:
        found = driver.observe(vm, facts)
        if found.power is Power.ABSENT and not found.unfit:
            return []
        return [Change(f"destroy VM {name}", "you have asked for it", driver.destroy(vm))]

    return Step("destroy", name, driver.facts(vm), changes, at=vm.host)


def losses(site: Site, name: str) -> tuple[str, ...]:
    """Return what is gone with a VM, a sentence each."""
    vm = site.vms[name]
    told = {
        "storage": "The share: all data, models and results that are kept on no other machine.",
        "registry": "The registry's images.",
        "control-plane": "The cluster: its state, and with it all that runs in it.",
        "worker": "What runs on this worker now.",
    }
    return (f"Its disk, {vm.disk_gb} GiB on {vm.host}.", *(told[role] for role in vm.roles))


def _found(site: Site, name: str, home: Path) -> tuple[VirtualMachine, Driver]:
    vms = vms_of(site, home)
    driver = driver_of(site.hosts[vms[name].host]) if name in vms else None
    if driver is None:
        there = f"one of {', '.join(vms)}" if vms else "the file names none"
        raise UserError(Problem(f"machine {name!r}", f"is no VM of {SITE_FILE} that the site makes", there))
    return vms[name], driver
