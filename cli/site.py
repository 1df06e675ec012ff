"""``mlops site``: the machines of configs/site.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.site_cluster import dashboard, smoke
from cli.site_file import described_site, raise_problems
from cli.site_life import life

if TYPE_CHECKING:
    from configs.site import Site
    from infra.site.engine import Outcome
    from infra.site.step import Step

site = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
site.add_typer(life)
MachineOption = Annotated[list[str] | None, typer.Option("--machine", help="Only this machine; may be given again.")]
VmArgument = Annotated[str, typer.Argument(help="A VM of configs/site.yaml.")]
StepOption = Annotated[list[str] | None, typer.Option("--step", help="Only this step; may be given again.")]


@site.command()
def plan(machine: MachineOption = None, step: StepOption = None) -> None:
    """What `apply` would change on which machine, and why; changes no machine. Exit 2 if something differs."""
    from cli.console import console
    from cli.site_table import print_changes
    from infra.site.engine import State

    outcomes = _run(machine, step, apply=False)
    print_changes(outcomes)
    raise_problems(outcomes)
    differing = sum(outcome.state is State.DIFFERS for outcome in outcomes.values())
    told = f"{differing} of {len(outcomes)} steps differ: mlops site apply"
    console.print(f"\n{told}" if differing else "\nNothing differs.")
    raise typer.Exit(2 if differing else 0)


@site.command()
def apply(
    machine: MachineOption = None,
    step: StepOption = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave what a failed step has made new, as a VM.")] = False,
) -> None:
    """Make the machines what configs/site.yaml says; what fits already is left alone."""
    from cli.console import console
    from cli.site_table import print_notes
    from infra.site.engine import State

    outcomes = _run(machine, step, apply=True, keep=keep)
    raise_problems(outcomes)
    print_notes(outcomes)
    if any(step == "control-plane" for _, step in outcomes):
        from configs.home import home_folder
        from infra.site.access import fetch_kubeconfig

        fetch_kubeconfig(described_site(), home_folder())
    changed = sum(outcome.state is State.CHANGED for outcome in outcomes.values())
    console.print(f"\nThe site is as configs/site.yaml says: {changed} of {len(outcomes)} steps had something to do.")


@site.command()
def trust(
    name: Annotated[str, typer.Argument(help="The machine, as configs/site.yaml names it.")],
    fingerprint: Annotated[
        str | None, typer.Option(help="What it must be, as SHA256:...; left out: you are shown it and asked.")
    ] = None,
) -> None:
    """Pin the host key of a machine, after you have compared its fingerprint with the machine's own."""
    from cli.console import console
    from configs.home import home_folder
    from configs.problems import Problem, UserError
    from infra.machines.host_keys import fingerprint as fingerprint_of
    from infra.machines.host_keys import offered_keys, pin
    from infra.site.inventory import machines_of, site_folder

    machines = machines_of(described_site(), home_folder())
    if name not in machines:
        raise UserError(Problem(f"machine {name!r}", "is none of the site", f"one of {', '.join(machines)}"))
    found = machines[name]
    keys = {fingerprint_of(key): key for key in offered_keys(found.address, found.port)}
    if fingerprint is not None and fingerprint not in keys:
        keys = {fingerprint_of(key): key for key in offered_keys(found.address, found.port, all_kinds=True)}
    if fingerprint is not None and fingerprint not in keys:
        what = f"shows none with {fingerprint}, but {', '.join(keys)}"
        raise UserError(Problem(f"host key of {name}", what, "another machine may have its address: look at it"))
    if fingerprint is None:
        console.print(f"{name} at {found.address} shows these host keys:")
        for shown, key in keys.items():
            console.print(f"  {key.split()[0]:<20} {shown}", soft_wrap=True)
        console.print("Compare with the machine's own: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
        typer.confirm(f"Trust {name} by these?", abort=True)
    trusted = list(keys.values()) if fingerprint is None else [keys[fingerprint]]
    pin(site_folder(home_folder()), name, trusted)
    console.print(f"{name} is trusted.")


@site.command()
def bundle(
    name: Annotated[str, typer.Argument(metavar="MACHINE", help="One with a network, of the others' release.")],
    output: Annotated[Path, typer.Option(help="The archive.")] = Path("site-packages.tar"),
    package: Annotated[list[str] | None, typer.Option(help="One more; may be given again.")] = None,
    *,
    community: Annotated[
        bool, typer.Option(help="Kubernetes from its own repository, not the machine's sources.")
    ] = True,
    kubernetes: Annotated[
        str, typer.Option(help="Its release, as one to upgrade to; left out: the one that configs/site.yaml says.")
    ] = "",
) -> None:
    """Make one archive of all packages that the steps install, for `packages: {bundle: FILE}`; changes no machine."""
    from cli.console import console
    from configs.home import home_folder
    from configs.site import SITE_FILE
    from infra.site.bundling import make_bundle
    from infra.site.life.upgrade import site_of

    described = site_of(described_site(), kubernetes)[0] if kubernetes else described_site()
    with console.status(f"{name} fetches packages"):
        count = make_bundle(described, Path.cwd(), home_folder(), name, output, package or (), community=community)
    size = output.stat().st_size / 1e6
    console.print(f"{output}: {count} packages, {size:.0f} MB. In {SITE_FILE}: packages: {{bundle: {output}}}")


@site.command()
def images(
    version: Annotated[str, typer.Argument(help="Of Kubernetes; left out: the one that configs/site.yaml says.")] = "",
) -> None:
    """Images of the cluster, a line each: from where, and to where in the mirror that kubernetes.images names."""
    from configs.home import home_folder
    from infra.site.images import kubernetes_images, mirrored
    from infra.site.life.upgrade import site_of

    described, _ = site_of(described_site(), version)
    found = kubernetes_images(described, home_folder())
    mirror = described.kubernetes.images if described.kubernetes else None
    for line in map(" ".join, mirrored(found, mirror)) if mirror else found:
        typer.echo(line)


@site.command()
def start(name: VmArgument) -> None:
    """Start a VM, and let it start with its host."""
    from configs.home import home_folder
    from infra.vms.control import start_step

    described = described_site()
    raise_problems(_do(described, [start_step(described, name, home_folder())]))


@site.command()
def stop(name: VmArgument) -> None:
    """Shut a VM down; `apply`, `check-site` and a start of its host start it again."""
    from configs.home import home_folder
    from infra.vms.control import stop_step

    described = described_site()
    raise_problems(_do(described, [stop_step(described, name, home_folder())]))


@site.command()
def destroy(name: VmArgument) -> None:
    """Remove a VM with its disk, after you have typed its name. Nothing brings it back."""
    from cli.console import console
    from configs.home import home_folder
    from configs.problems import Problem, UserError
    from infra.vms.control import destroy_step, losses

    described = described_site()
    step = destroy_step(described, name, home_folder())
    console.print(f"With {name} is lost:")
    for line in losses(described, name):
        console.print(f"  {line}", soft_wrap=True)
    if typer.prompt("The machine's name") != name:
        raise UserError(Problem(f"machine {name!r}", "was not named: nothing is destroyed", "type its name"))
    raise_problems(_do(described, [step]))


def _run(
    machines: list[str] | None, names: list[str] | None, *, apply: bool, keep: bool = False
) -> dict[tuple[str, str], Outcome]:
    from infra.site.plan import select

    described = described_site()
    return _do(described, select(_steps(described), machines or [], names or []), apply=apply, keep=keep)


def _do(
    described: Site, steps: list[Step], *, apply: bool = True, keep: bool = False
) -> dict[tuple[str, str], Outcome]:
    from cli.site_table import live_site
    from configs.home import home_folder
    from infra.site.session import run_site

    with live_site(steps) as table:
        return run_site(described, Path.cwd(), home_folder(), table.report, apply=apply, keep=keep, steps=steps)


def _steps(described: Site) -> list[Step]:
    from configs.home import home_folder
    from infra.site.plan import site_steps

    return site_steps(described, Path.cwd(), home_folder())


site.command()(dashboard)
site.command()(smoke)
