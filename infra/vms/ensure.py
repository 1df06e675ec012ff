"""Steps ``vm`` and ``pending``: a virtual machine is there, as the site says, and runs. The rules of all drivers.

Nothing differs, nothing is done. A disk is never made smaller or anew. What needs a VM to be off is done when it is
off; while it runs, a person is told, by a step of its own: nothing else has to wait for that.
"""

from __future__ import annotations

from collections.abc import Iterator

from infra.site.facts import Fact, Facts
from infra.site.reading import file_changes, file_fact
from infra.site.step import Change, Step
from infra.vms.driver import Driver, Observed, Power
from infra.vms.machine import VirtualMachine
from infra.vms.seed import seed_actions, seed_marker


def vm_step(vm: VirtualMachine, driver: Driver, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step that makes and starts ``vm``; it is its host's to do.

    Args:
        after: the host's packages and the image are there then.
    """

    def changes(facts: Facts) -> Iterator[Change]:
        found = driver.observe(vm, facts)
        if found.unfit:
            yield from found.unfit
        elif found.power is Power.ABSENT:
            made = (*seed_actions(vm, driver.readers), *driver.create(vm))
            yield Change(f"make VM {vm.name}", "is not there", made, undo=driver.destroy(vm))
            yield Change(f"start VM {vm.name}", "is new", driver.start(vm))
        elif found.power is Power.OFF:
            yield from _when_off(vm, driver, found, facts)
            yield Change(f"start VM {vm.name}", "is off", driver.start(vm))
        elif not found.autostarts:
            yield Change(f"let VM {vm.name} start with its host", "would be off after a reboot", driver.start(vm))

    return Step("vm", vm.name, _facts(vm, driver), changes, after, at=vm.host)


def pending_step(vm: VirtualMachine, driver: Driver, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step that says what a running VM lacks until it is stopped, and what is never done to it."""

    def changes(facts: Facts) -> Iterator[Change]:
        found = driver.observe(vm, facts)
        if found.disk_bytes is not None and found.disk_bytes > vm.disk_bytes:
            why = f"has {found.disk_bytes / 2**30:g} GiB, {vm.disk_gb} are wanted"
            remedy = f"write `disk_gb: {-(-found.disk_bytes // 2**30)}`: a disk is never made smaller"
            yield Change(f"make the disk of VM {vm.name} smaller", why, by_hand=remedy)
        if found.power is Power.RUNNING:
            remedy = f"when it may stop: `mlops site stop {vm.name}`, then `mlops site apply`"
            for change in _when_off(vm, driver, found, facts):
                yield Change(change.what, f"{change.why}; it runs", by_hand=remedy)

    return Step("pending", vm.name, _facts(vm, driver), changes, after, at=vm.host)


def _facts(vm: VirtualMachine, driver: Driver) -> tuple[Fact, ...]:
    return (file_fact(seed_marker(vm)), *driver.facts(vm))


def _when_off(vm: VirtualMachine, driver: Driver, found: Observed, facts: Facts) -> Iterator[Change]:
    if found.differences:
        yield Change(f"define VM {vm.name} anew", "; ".join(found.differences), driver.define(vm))
    if found.disk_bytes is not None and found.disk_bytes < vm.disk_bytes:
        why = f"has {found.disk_bytes / 2**30:g} GiB, {vm.disk_gb} are wanted"
        yield Change(f"make the disk of VM {vm.name} larger", why, driver.grow(vm))
    if file_changes(seed_marker(vm), facts):
        why = "its address, card or keys are others"
        yield Change(f"give VM {vm.name} its identity", why, seed_actions(vm, driver.readers))
