"""``mlops site``: what happens to a site after it was provisioned. Passphrases are asked for, or in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.site_file import described_site, raise_problems

if TYPE_CHECKING:
    from configs.site import Site
    from infra.site.life.backup import Closing
    from infra.site.step import Step

life = typer.Typer(rich_markup_mode=None)
WorkerArgument = Annotated[str, typer.Argument(help="The machine, as configs/site.yaml names it.")]
RecipientOption = Annotated[
    list[str] | None, typer.Option("--recipient", help="Public key of age that may open it; may be given again.")
]
PassphraseOption = Annotated[
    Path | None, typer.Option(help="File (0600) with the passphrase; left out, and no recipient: you are asked for it.")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="End also pods that nobody starts again, or that lose what they wrote there.")
]
TimeoutOption = Annotated[int, typer.Option(min=1, help="Seconds to wait for pods to end.")]
DRAIN_S = 300


@life.command("add-worker")
def add_worker(name: WorkerArgument) -> None:
    """Make a machine of configs/site.yaml a worker, and wait until its node is ready."""
    from cli.console import console
    from infra.site.life.changes import add_worker_steps

    _run(add_worker_steps(described_site(), Path.cwd(), _home(), name))
    console.print(f"\n{name} is ready for pods.")


@life.command("remove-worker")
def remove_worker(
    name: WorkerArgument,
    typed: Annotated[str | None, typer.Option("--name", help="The name again; left out: you are asked for it.")] = None,
    timeout: TimeoutOption = DRAIN_S,
    force: ForceOption = False,
    lost: Annotated[
        bool, typer.Option("--lost", help="The machine is gone for good: nobody asks it anything.")
    ] = False,
) -> None:
    """Drain a worker, delete its node and stop its kubelet; what is on the machine stays."""
    from cli.console import console
    from configs.problems import Problem, UserError
    from infra.site.life.changes import remove_worker_steps

    steps = remove_worker_steps(described_site(), _home(), name, force=force, lost=lost, timeout_s=timeout)
    if (typed or typer.prompt(f"Its pods will end. Type the machine's name, {name}, if you mean it")) != name:
        raise UserError(Problem(f"remove {name}", "another name was typed", "nothing was done"))
    _run(steps)
    console.print(f"\n{name} is no node any more: remove it from configs/site.yaml, or let it in by add-worker.")


@life.command()
def upgrade(
    version: Annotated[
        str, typer.Argument(help="A release, as 1.34.9; left out: the one that configs/site.yaml says.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    timeout: TimeoutOption = DRAIN_S,
    force: Annotated[bool, typer.Option("--force", help="End also pods that nobody starts again.")] = False,
) -> None:
    """Bring the cluster to a newer Kubernetes, node by node, after a snapshot; killed, the next run goes on."""
    from cli.console import console
    from cli.site_upgrade import ShownUpgrade
    from configs.problems import UserError
    from infra.site.life.upgrade import upgrade as bring

    watcher = ShownUpgrade(yes, _run)
    try:
        plan = bring(Path.cwd(), _home(), version, watcher, force=force, timeout_s=timeout)
    except UserError:
        if watcher.began:
            goes_on = "`mlops site upgrade` goes on from here; a node that was drained takes no new pods until then."
            console.print(f"\nNot at its end: {goes_on}", soft_wrap=True)
        raise
    if not plan.done:
        console.print(f"\nAll nodes are of {plan.release}.")


@life.command()
def backup(
    file: Annotated[Path, typer.Argument(help="A new file, or a folder for one named by the time.")],
    recipient: RecipientOption = None,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Write all that is needed to have the site again, encrypted, into one file."""
    _back_up(described_site(), file, _closing(recipient, passphrase_file))


@life.command()
def restore(
    file: Annotated[Path, typer.Argument(help="Of `mlops site backup`.")],
    passphrase_file: PassphraseOption = None,
    identity_file: Annotated[
        Path | None, typer.Option(help="File (0600) of age-keygen, where it was encrypted for a recipient.")
    ] = None,
    snapshot: Annotated[
        Path | None, typer.Option(help="A newer snapshot, from the share's folder `backups`, instead of the backup's.")
    ] = None,
    replace: Annotated[
        str, typer.Option(help="The control plane's name: what is left of a cluster there is moved aside.")
    ] = "",
) -> None:
    """Bring back what this checkout has lost, and the cluster on a machine that has none; a living one is refused."""
    from cli.console import console
    from infra.site.life.backup import passphrase_in
    from infra.site.life.changes import restore_steps
    from infra.site.life.restore_state import (
        identity_in,
        open_by,
        read_backup,
        restore_state,
        wants_passphrase,
        with_snapshot,
    )

    if identity_file is not None:
        opener = open_by(identity=identity_in(identity_file))
    elif passphrase_file is not None:
        opener = open_by(passphrase=passphrase_in(passphrase_file))
    elif wants_passphrase(file):
        opener = open_by(passphrase=typer.prompt("Passphrase of the backup", hide_input=True))
    else:
        opener = open_by(identity=typer.prompt("Identity of age (AGE-SECRET-KEY-1...)", hide_input=True))
    members, about = read_backup(file, opener)
    if snapshot is not None:
        members = with_snapshot(members, snapshot)
    console.print(f"A backup of {about.get('made', '?')}, with {len(members)} files.")
    for path in restore_state(members, Path.cwd(), _home()):
        console.print(f"  {path} is there again")
    steps = restore_steps(described_site(), Path.cwd(), _home(), members, replace)
    if steps:
        _run(steps)
    console.print("\nRestored. `mlops site plan` says what else differs.")


@life.command()
def retire(
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Each machine's name; left out: you are asked for them.")
    ] = None,
    backup_to: Annotated[Path | None, typer.Option(help="Where the last backup is written.")] = None,
    recipient: RecipientOption = None,
    passphrase_file: PassphraseOption = None,
    no_backup: Annotated[bool, typer.Option("--no-backup", help="Take no last backup.")] = False,
    data: Annotated[bool, typer.Option("--data", help="Remove the share's and the registry's data, for good.")] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Run kubeadm reset on every node: the cluster is lost.")
    ] = False,
    timeout: TimeoutOption = DRAIN_S,
    force: ForceOption = False,
) -> None:
    """Drain and stop all machines of the site, after a last backup; their data stays."""
    from cli.console import console
    from configs.problems import Problem, UserError
    from infra.site.inventory import machines_of
    from infra.site.life.retire import check_typed, retire_steps

    described = described_site()
    if no_backup == (backup_to is not None):
        raise UserError(
            Problem("the last backup", "is to be taken, or not", "give `--backup-to FILE` or `--no-backup`")
        )
    machines = [machine.name for machine in machines_of(described, _home()).values() if machine.roles]
    for machine in machines if name is None else ():
        console.print(f"{machine} will be stopped." + (" Its data will be removed." if data or reset else ""))
    typed = name or [typer.prompt(f"Type {machine}, if you mean it") for machine in machines]
    check_typed(described, _home(), typed)
    if backup_to is not None:
        _back_up(described, backup_to, _closing(recipient, passphrase_file))
    _run(retire_steps(described, _home(), force=force, timeout_s=timeout, data=data, reset=reset))
    console.print("\nThe site is stopped. `mlops site apply` would start it again.")


def _closing(recipients: list[str] | None, passphrase_file: Path | None) -> Closing:
    from infra.site.life.backup import Closing, passphrase_in

    if recipients:
        return Closing(tuple(recipients), passphrase_in(passphrase_file) if passphrase_file else "")
    if passphrase_file is not None:
        return Closing(passphrase=passphrase_in(passphrase_file))
    asked = typer.prompt("Passphrase of the backup", hide_input=True, confirmation_prompt=True)
    return Closing(passphrase=asked)


def _back_up(described: Site, file: Path, closing: Closing) -> None:
    from cli.console import console
    from cli.site_table import live_site
    from infra.site.life.backup import back_up, backup_step

    step = backup_step(described, _home())
    with live_site([step]) as table:
        outcomes, members = back_up(described, Path.cwd(), _home(), file, closing, table.report)
    raise_problems(outcomes)
    ((written,),) = (outcome.changes for outcome in outcomes.values())
    console.print(f"\n{written.what.split(maxsplit=1)[1]}: {len(members)} files. Keep it, and its key, off the site.")


def _run(steps: Sequence[Step]) -> None:
    from cli.site_table import live_site
    from infra.site.session import run_site

    with live_site(steps) as table:
        outcomes = run_site(described_site(), Path.cwd(), _home(), table.report, apply=True, steps=steps)
    raise_problems(outcomes)


def _home() -> Path:
    from configs.home import home_folder

    return home_folder()
