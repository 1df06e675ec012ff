"""Makes a bundle of packages on a machine of the site that has a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from configs.problems import Problem, UserError
from configs.site import Site
from infra.machines.commands import Command
from infra.machines.ssh import Machine
from infra.site.bundle import ARCHIVE, PLACE, bundle_command, read_made, wanted_packages
from infra.site.inventory import machines_of, site_folder
from infra.site.plan import site_steps
from infra.site.session import login_of
from infra.site.steps.kubernetes import repository


def make_bundle(
    site: Site, root: Path, home: Path, name: str, output: Path, more: Sequence[str], *, community: bool
) -> int:
    """Make a bundle on machine ``name`` and write it to ``output``; return how many packages are in it.

    Args:
        more: packages besides those of the steps. community: Kubernetes comes from its project's own repository, not
            from the sources that the machine has.

    Raises:
        UserError: there is no such machine, or it cannot get a package.
    """
    machines = machines_of(site, home)
    if name not in machines:
        raise UserError(Problem(f"machine {name!r}", "is none of the site", f"one of {', '.join(machines)}"))
    # The bundle that the site names is the one that is to be made.
    steps = site_steps(site.model_copy(update={"packages": None}), root, home)
    packages = [*wanted_packages(steps, site.kubernetes), *more]
    place = repository(site.kubernetes.version) if site.kubernetes and community else ""
    with Machine(login_of(machines[name]), site_folder(home)) as machine:
        try:
            count, digest = read_made(machine.run(bundle_command(packages, place)).stdout)
            machine.download(ARCHIVE, output, digest)
        finally:
            machine.run(Command(("rm", "-rf", str(PLACE))))
    return count
