"""A site at its end: drained and stopped, so that nothing starts again by itself. Data stays unless told otherwise.

Whatever is removed is a step of its own, made only for machines whose names were typed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from configs.problems import Problem, UserError
from configs.site import Site
from infra.kubeadm.joining import FOLDER
from infra.kubeadm.snapshots import STORE
from infra.kubeadm.snapshots import TIMER as SNAPSHOTS
from infra.machines.commands import Command
from infra.samba.client import escape_path
from infra.samba.server import FOLDER as SHARES
from infra.site.facts import Fact, Facts
from infra.site.inventory import SiteMachine, holder, machines_of
from infra.site.life.leaving import DRAIN_S, drain_step, leave_step
from infra.site.reading import file_fact, read_unit, unit_fact
from infra.site.step import Change, Step
from infra.site.steps.control_plane import MADE
from infra.site.steps.registry import DATA as IMAGES
from infra.site.steps.registry import TIMERS
from infra.site.steps.registry import UNIT as REGISTRY
from infra.site.steps.storage import UNIT as SAMBA
from infra.vms.control import stop_step
from infra.vms.inventory import vms_of

_RESET_S = 300


def check_typed(site: Site, home: Path, typed: Collection[str]) -> None:
    """Look whether the names of all machines were typed that a retirement changes.

    Raises:
        UserError: one is missing, or is the name of none.
    """
    wanted = [machine.name for machine in machines_of(site, home).values() if machine.roles]
    problems = [
        Problem(f"machine {name}", "would be stopped, and its name was not typed", f"`--name {name}`, if you mean it")
        for name in wanted
        if name not in typed
    ]
    problems += [
        Problem(f"name {name!r}", "is that of no machine of the site with a role", f"those are {', '.join(wanted)}")
        for name in typed
        if name not in wanted
    ]
    if problems:
        raise UserError(problems)


def retire_steps(
    site: Site, home: Path, *, force: bool = False, timeout_s: int = DRAIN_S, data: bool = False, reset: bool = False
) -> list[Step]:
    """Return the steps that end a site: workers drained, then all stopped, the control plane after its workers.

    Args:
        home: the checkout's state folder.
        force, timeout_s: of :func:`infra.site.life.leaving.drain_step`.
        data: remove the share's and the registry's data, and the snapshots on the control plane, for good.
        reset: run ``kubeadm reset`` on every node: etcd's data and the nodes' keys are lost.
    """
    machines = machines_of(site, home)
    control_plane = holder(machines, "control-plane") if site.kubernetes is not None else None
    workers = [item for item in machines.values() if "worker" in item.roles and item != control_plane]
    steps: list[Step] = []
    if control_plane is not None:
        # No snapshot begins while etcd goes down.
        steps.append(_stop(control_plane.name, "snapshots", (SNAPSHOTS,)))
        for worker in workers:
            drain = drain_step(control_plane.name, worker.name, force=force, timeout_s=timeout_s)
            steps += [drain, leave_step(worker.name, ((control_plane.name, drain.name),), forget=False)]
        left = tuple((worker.name, "leave") for worker in workers)
        steps.append(leave_step(control_plane.name, (*left, (control_plane.name, "stop snapshots")), forget=False))
    steps += _services(site, machines.values())
    if reset:
        nodes = [control_plane, *workers] if control_plane is not None else []
        steps += [_reset(node.name, ((node.name, "leave"),)) for node in nodes if node is not None]
    if data:
        steps += list(_erasing(steps, machines.values()))
    return [*steps, *_shutdowns(site, home, steps)]


def _shutdowns(site: Site, home: Path, stopped: Sequence[Step]) -> Iterator[Step]:
    """Yield the steps that shut the site's own VMs down, each after all else there; their disks stay."""
    for name in vms_of(site, home):
        after = tuple((step.machine, step.name) for step in stopped if step.machine == name)
        yield replace(stop_step(site, name, home), after=after, repairable=False)


def _services(site: Site, machines: Collection[SiteMachine]) -> Iterator[Step]:
    leaves = tuple((machine.name, "leave") for machine in machines if {"worker", "control-plane"} & set(machine.roles))
    mounted = site.mounted_share
    for machine in machines:
        if "worker" in machine.roles and mounted is not None:
            unit = escape_path(PurePosixPath(mounted.path))
            units = (f"{unit}.automount", f"{unit}.mount")
            yield _stop(machine.name, "mounts", units, ((machine.name, "leave"),) if site.kubernetes else ())
        after = leaves if site.kubernetes else ()
        if "registry" in machine.roles:
            yield _stop(machine.name, "registry", (*TIMERS, REGISTRY), after)
        if "storage" in machine.roles:
            yield _stop(machine.name, "storage", (SAMBA,), after)


def _stop(machine: str, what: str, units: Sequence[str], after: tuple[tuple[str, str], ...] = ()) -> Step:
    """Return the step that stops units, now and at every boot; one that is not there is stopped."""

    def changes(facts: Facts) -> Iterator[Change]:
        for name in units:
            unit = read_unit(name, facts)
            if unit.active in ("active", "activating", "failed") or unit.file == "enabled":
                actions = (
                    Command(("systemctl", "disable", "--now", name)),
                    Command(("systemctl", "reset-failed", name), accepted=frozenset({0, 1})),
                )
                yield Change(f"stop {name}, now and for good", f"is {unit.active}, {unit.file or 'not there'}", actions)

    return Step(f"stop {what}", machine, tuple(map(unit_fact, units)), changes, after, repairable=False)


def _reset(machine: str, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step that makes a node none; whoever calls it has the machine's name typed."""
    there = Fact(("sh", "-c", f"ls -d {FOLDER}/*.conf {MADE.path} /var/lib/etcd/member 2>/dev/null"))
    markers = " ".join(str(FOLDER / name) for name in ("mlops-begun", "mlops-made", "mlops-removed", "mlops-restored"))
    script = f"kubeadm reset --force && rm -rf /var/lib/etcd {markers}"

    def changes(facts: Facts) -> Iterator[Change]:
        if facts[there].text.strip() or facts[file_fact(MADE)].ok:
            command = Command(("sh", "-c", script), timeout_s=_RESET_S)
            yield Change("run kubeadm reset", "you have asked for it", (command,))

    return Step("reset", machine, (there, file_fact(MADE)), changes, after, repairable=False)


def _erasing(stopped: Sequence[Step], machines: Collection[SiteMachine]) -> Iterator[Step]:
    """Yield the steps that remove data; whoever calls it has the machines' names typed."""
    folders = {"storage": (SHARES,), "registry": (IMAGES,), "control-plane": (STORE,)}
    for machine in machines:
        paths = tuple(path for role in machine.roles for path in folders.get(role, ()))
        if paths:
            after = tuple((step.machine, step.name) for step in stopped if step.machine == machine.name)
            yield _erase(machine.name, paths, after)


def _erase(machine: str, paths: Sequence[PurePosixPath], after: tuple[tuple[str, str], ...]) -> Step:
    questions = {path: Fact(("test", "-e", str(path))) for path in paths}

    def changes(facts: Facts) -> Iterator[Change]:
        for path, asked in questions.items():
            if facts[asked].ok:
                # Only what lies on this disk: nothing that is mounted below it.
                command = Command(("rm", "-rf", "--one-file-system", "--", str(path)), timeout_s=3600)
                yield Change(f"remove {path}", "you have asked for it", (command,))

    return Step("erase", machine, tuple(questions.values()), changes, after, repairable=False)
