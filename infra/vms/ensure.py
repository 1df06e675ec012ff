"""Step ``vm``: a virtual machine is there, as the site says, and runs. The rules of all drivers.

Nothing differs, nothing is done. A disk is never made smaller or anew. What needs a VM to be off is done when it is
off; while it runs, a person is told.
"""

from __future__ import annotations

from collections.abc import Iterator

from infra.site.facts import Facts
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
        yield from vm_changes(vm, driver, facts)

    facts = (file_fact(seed_marker(vm)), *driver.facts(vm))
    return Step("vm", vm.name, facts, changes, after, at=vm.host)


def vm_changes(vm: VirtualMachine, driver: Driver, facts: Facts) -> Iterator[Change]:
    """Yield what makes a VM as wanted, and starts it."""
    found = driver.observe(vm, facts)
    if found.unfit:
        yield from found.unfit
        return
    seed = file_changes(seed_marker(vm), facts)
    if found.power is Power.ABSENT:
        made = (*seed_actions(vm, driver.readers), *driver.create(vm))
        yield Change(f"make VM {vm.name}", "is not there", made, undo=driver.destroy(vm))
        yield Change(f"start VM {vm.name}", "is new", driver.start(vm))
        return
    if found.disk_bytes is not None and found.disk_bytes > vm.disk_bytes:
        what, why = f"make the disk of VM {vm.name} smaller", f"has {found.disk_bytes / 2**30:g} GiB"
        remedy = f"write `disk_gb: {-(-found.disk_bytes // 2**30)}`: a disk is never made smaller"
        yield Change(what, f"{why}, {vm.disk_gb} are wanted", by_hand=remedy)
    wanted = tuple(_when_off(vm, driver, found, seed))
    if wanted and found.power is Power.RUNNING:
        remedy = f"when it may stop: `mlops site stop {vm.name}`, then `mlops site apply`"
        yield from (Change(change.what, f"{change.why}; it runs", by_hand=remedy) for change in wanted)
        return
    yield from wanted
    if found.power is Power.OFF:
        yield Change(f"start VM {vm.name}", "is off", driver.start(vm))
    elif not found.autostarts:
        yield Change(f"let VM {vm.name} start with its host", "would be off after a reboot", driver.start(vm))


def _when_off(vm: VirtualMachine, driver: Driver, found: Observed, seed: list[Change]) -> Iterator[Change]:
    if found.differences:
        yield Change(f"define VM {vm.name} anew", "; ".join(found.differences), driver.define(vm))
    if found.disk_bytes is not None and found.disk_bytes < vm.disk_bytes:
        why = f"has {found.disk_bytes / 2**30:g} GiB, {vm.disk_gb} are wanted"
        yield Change(f"make the disk of VM {vm.name} larger", why, driver.grow(vm))
    if seed:
        why = "its address, card or keys are others"
        yield Change(f"give VM {vm.name} its identity", why, seed_actions(vm, driver.readers))
