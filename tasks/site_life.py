"""What happens to a site after it was provisioned, from a flow. What opens a backup is in a file, never a parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.artifacts import create_markdown_artifact

from configs.home import home_folder
from configs.problems import Problem, UserError
from configs.site import SITE_FILE, load_site
from infra.repository.code import find_root
from infra.site.engine import Key, Outcome, problems_of
from infra.site.report import site_markdown
from infra.site.step import Step
from tasks.site import report_to
from tasks.verbs import log, say_errors_once, verb

if TYPE_CHECKING:
    from configs.site import Site
    from infra.site.life.upgrade import Plan

UPGRADE = "upgrade-cluster"


@verb("add worker")
def add(name: str) -> None:
    """Make a machine of the site's file a worker, and wait until its node is ready.

    Raises:
        UserError: there is no such worker, or a step failed.
    """
    from infra.site.life.changes import add_worker_steps

    root = find_root(Path.cwd())
    _run(root, "add-worker", add_worker_steps(load_site(root / SITE_FILE), root, home_folder(root), name))


@verb("remove worker")
def remove(name: str, typed: str, *, force: bool, lost: bool, timeout_s: int) -> None:
    """Drain a worker, stop its kubelet and delete its node.

    Args:
        typed: the name again. force, lost, timeout_s: as of :func:`infra.site.life.changes.remove_worker_steps`.

    Raises:
        UserError: another name was typed, there is no such worker, or a step failed.
    """
    from infra.site.life.changes import remove_worker_steps

    if typed != name:
        raise UserError(Problem(f"remove {name}", f"{typed!r} was typed", "type the machine's name twice"))
    root = find_root(Path.cwd())
    site = load_site(root / SITE_FILE)
    steps = remove_worker_steps(site, home_folder(root), name, force=force, lost=lost, timeout_s=timeout_s)
    _run(root, "remove-worker", steps)


@verb("upgrade cluster")
def upgrade(version: str, *, force: bool, timeout_s: int) -> None:
    """Bring the cluster to a newer Kubernetes, node by node, after a snapshot; nothing is done where all have it.

    Args:
        version: empty: as the site's file says; else it is written there, once nothing is in the way.
        force, timeout_s: as of :func:`infra.site.life.upgrade.upgrade_steps`.

    Raises:
        UserError: it cannot be upgraded so, or a step failed.
    """
    from infra.site.life.upgrade import upgrade as bring

    say_errors_once()
    root = find_root(Path.cwd())
    bring(root, home_folder(root), version, _Upgrade(root), force=force, timeout_s=timeout_s)


@verb("back up site")
def back_up(to: str, recipients: Sequence[str], passphrase_file: str) -> None:
    """Write a backup, and say what is in it.

    Args:
        to: the new file. recipients: public keys of age; empty: the passphrase is in ``passphrase_file`` (0600).

    Raises:
        UserError: it cannot be taken, encrypted or written.
    """
    from infra.site.life import backup

    say_errors_once()
    root = find_root(Path.cwd())
    passphrase = backup.passphrase_in(_path(root, passphrase_file)) if passphrase_file else ""
    closing = backup.Closing(tuple(recipients), passphrase)
    file = _path(root, to)
    outcomes, members = backup.back_up(
        load_site(root / SITE_FILE), root, home_folder(root), file, closing, report_to(log())
    )
    contents = "".join(f"- {name}, {len(data)} bytes\n" for name, data in members.items())
    _publish("backup-site", outcomes, contents)


@verb("restore site")
def restore(file: str, passphrase_file: str, identity_file: str, snapshot: str, replace: str) -> None:
    """Bring back what the checkout has lost, and the cluster.

    Args:
        file: the backup. passphrase_file, identity_file: one of them (0600) opens it.
        snapshot: a newer one than the backup's, from the share; empty: the backup's own.
        replace: the control plane's name, typed, where what is left of a cluster may be moved aside.

    Raises:
        UserError: it cannot be opened, does not fit what is there, or a step failed.
    """
    from infra.site.life.backup import passphrase_in
    from infra.site.life.changes import restore_steps
    from infra.site.life.restore_state import identity_in, open_by, read_backup, restore_state, with_snapshot

    say_errors_once()
    if bool(passphrase_file) == bool(identity_file):
        raise UserError(Problem("the backup", "is opened by one thing", "give `passphrase_file` or `identity_file`"))
    root = find_root(Path.cwd())
    if passphrase_file:
        opener = open_by(passphrase=passphrase_in(_path(root, passphrase_file)))
    else:
        opener = open_by(identity=identity_in(_path(root, identity_file)))
    members, _ = read_backup(_path(root, file), opener)
    if snapshot:
        members = with_snapshot(members, _path(root, snapshot))
    for path in restore_state(members, root, home_folder(root)):
        log().info("%s is there again", path)
    _run(root, "restore-site", restore_steps(load_site(root / SITE_FILE), root, home_folder(root), members, replace))


@verb("retire site")
def stop_all(names: Sequence[str], *, data: bool, reset: bool, force: bool, timeout_s: int) -> None:
    """Drain and stop all machines.

    Args:
        names: of all machines with a role, typed. data, reset, force, timeout_s: as of
            :func:`infra.site.life.retire.retire_steps`.

    Raises:
        UserError: a name is missing, or a step failed.
    """
    from infra.site.life.retire import check_typed, retire_steps

    root = find_root(Path.cwd())
    site, home = load_site(root / SITE_FILE), home_folder(root)
    check_typed(site, home, names)
    _run(root, "retire-site", retire_steps(site, home, force=force, timeout_s=timeout_s, data=data, reset=reset))


class _Upgrade:
    """Shows an upgrade as the artifact and in the log of a run."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def look(self, site: Site, steps: Sequence[Step]) -> dict[Key, Outcome]:
        from infra.site.life.upgrade import look

        return look(site, self._root, home_folder(self._root), report_to(log()), steps)

    def planned(self, plan: Plan) -> None:
        _publish(UPGRADE, plan.outcomes)
        if not plan.problems and not plan.done:
            log().info("the state before: %s", plan.snapshot)

    def run(self, steps: Sequence[Step]) -> None:
        _run(self._root, UPGRADE, steps)

    def say(self, told: str) -> None:
        log().info(told)


def _run(root: Path, artifact: str, steps: Sequence[Step]) -> None:
    from infra.site.session import run_site

    say_errors_once()
    outcomes = run_site(load_site(root / SITE_FILE), root, home_folder(root), report_to(log()), apply=True, steps=steps)
    _publish(artifact, outcomes)


def _publish(artifact: str, outcomes: Mapping[Key, Outcome], more: str = "") -> None:
    text = "\n".join(filter(None, (site_markdown(outcomes), more)))
    create_markdown_artifact(key=artifact, markdown=text, description="Machines by steps")
    problems = problems_of(outcomes)
    if problems:
        raise UserError(problems)


def _path(root: Path, name: str) -> Path:
    return root / Path(name).expanduser()
