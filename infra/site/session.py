"""A run over a whole site: its steps, connections to the machines they need, and the lock."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from configs.problems import Problem
from configs.site import SITE_FILE, Site
from infra.machines.hold import Holds
from infra.machines.search import find_moved
from infra.machines.ssh import Machine
from infra.machines.trouble import ConnectionLost, Login
from infra.site.engine import Key, Outcome, Report, run_steps
from infra.site.inventory import SiteMachine, machines_of, site_folder
from infra.site.lock import site_lock
from infra.site.plan import site_steps
from infra.site.step import Step


def login_of(machine: SiteMachine) -> Login:
    """Return how ssh gets to a machine."""
    return Login(machine.name, machine.address, machine.user, machine.port, machine.key)


@contextmanager
def reached(machines: Mapping[str, SiteMachine], folder: Path) -> Iterator[dict[str, Machine]]:
    """Yield a connection for each machine: opened at its first command, closed with the block."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(Machine(login_of(machine), folder)) for name, machine in machines.items()}


@contextmanager
def reached_for(site: Site, root: Path, home: Path, changed: Collection[str]) -> Iterator[dict[str, Machine]]:
    """Yield connections to all machines of a site, and keep everybody else from changing some of them meanwhile.

    Args:
        root: the checkout. home: its state folder. changed: machines that are to be changed; none: nothing is locked.

    Raises:
        UserError: somebody else changes the site or one of those machines now.
    """
    folder = site_folder(home)
    with ExitStack() as stack:
        if changed:
            stack.enter_context(site_lock(folder))
        holds = stack.enter_context(Holds(root))
        machines = stack.enter_context(reached(machines_of(site, home), folder))
        if changed:
            holds.take([machines[name] for name in changed])
        yield machines


def run_site(
    site: Site,
    root: Path,
    home: Path,
    report: Report,
    *,
    apply: bool,
    only_repairs: bool = False,
    keep: bool = False,
    steps: Sequence[Step] | None = None,
) -> dict[Key, Outcome]:
    """Read all machines of a site, and make them as it says, or only say what differs.

    Args:
        root: the checkout. home: its state folder.
        apply: False: change no machine. only_repairs, keep: see :func:`infra.site.engine.run_steps`.
        steps: some of :func:`infra.site.plan.site_steps`; left out: all.

    Raises:
        UserError: the site cannot be planned, or another process changes it now. What goes wrong in a step is in its
            outcome.
    """
    folder = site_folder(home)
    chosen = list(site_steps(site, root, home) if steps is None else steps)
    with reached_for(site, root, home, {step.where for step in chosen} if apply else set()) as machines:
        outcomes = run_steps(chosen, machines, report, apply=apply, only_repairs=only_repairs, keep=keep)
    return _say_who_moved(outcomes, site, folder)


def _say_who_moved(outcomes: dict[Key, Outcome], site: Site, folder: Path) -> dict[Key, Outcome]:
    """Say of machines that could not be reached where they answer now, if they do."""
    lost = {key[0] for key, item in outcomes.items() if isinstance(item.error, ConnectionLost)}
    moved = find_moved(folder, lost, site.network.cidr) if lost and site.network else {}
    for name in lost & moved.keys():
        described = site.hosts[name] if name in site.hosts else site.vms[name]
        if str(described.address) == str(moved[name]):
            del moved[name]  # it answers again, and what was said of it stands
    for key, outcome in outcomes.items():
        if isinstance(outcome.error, ConnectionLost) and key[0] in moved:
            section = "hosts" if key[0] in site.hosts else "vms"
            what = f"does not answer at its address, but at {moved[key[0]]}: by its host key it is the same machine"
            remedy = (
                f"write `address: {moved[key[0]]}` at {section}.{key[0]} in {SITE_FILE} and run `mlops site apply`, or "
                "give the machine its address back; let the DHCP server reserve it"
            )
            outcomes[key] = replace(outcome, error=ConnectionLost(Problem(key[0], what, remedy)))
    return outcomes
