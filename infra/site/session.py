"""A run over a whole site: its steps, connections to the machines they need, and the lock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from configs.site import Site
from infra.machines.ssh import Machine
from infra.machines.trouble import Login
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


def run_site(
    site: Site,
    root: Path,
    home: Path,
    report: Report,
    *,
    apply: bool,
    only_repairs: bool = False,
    steps: Sequence[Step] | None = None,
) -> dict[Key, Outcome]:
    """Read all machines of a site, and make them as it says, or only say what differs.

    Args:
        root: the checkout. home: its state folder.
        apply: False: change no machine. only_repairs: see :func:`infra.site.engine.run_steps`.
        steps: some of :func:`infra.site.plan.site_steps`; left out: all.

    Raises:
        UserError: the site cannot be planned, or another process changes it now. What goes wrong in a step is in its
            outcome.
    """
    folder = site_folder(home)
    chosen = list(site_steps(site, root, home) if steps is None else steps)
    with ExitStack() as stack:
        if apply:
            stack.enter_context(site_lock(folder))
        machines = stack.enter_context(reached(machines_of(site, home), folder))
        return run_steps(chosen, machines, report, apply=apply, only_repairs=only_repairs)
