"""An upgrade of the site's cluster: its steps in order, what is in its way, and its version in the site's file."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import yaml

from configs.kubernetes import check_version
from configs.problems import Problem, UserError
from configs.site import SITE_FILE, Site, load_site
from infra.kubeadm.snapshots import STORE, SharePlace
from infra.site.access import fetch_kubeconfig
from infra.site.engine import Key, Outcome, Report, State, problems_of
from infra.site.inventory import holder, machines_of
from infra.site.life.leaving import DRAIN_S
from infra.site.life.upgrade_checks import nodes_step, offer_step
from infra.site.life.upgrading import back_step, control_plane_step, empty_step, kubelet_step, snapshot_step
from infra.site.plan import site_steps
from infra.site.session import run_site
from infra.site.step import Step
from infra.site.steps.packages import sole_bundle
from infra.site.steps.snapshots import snapshot_plan

CHECKS = ("nodes", "packages", "offer")
"""Steps that say whether an upgrade can be done; the cluster is not changed by them."""


@dataclass(frozen=True)
class Plan:
    """What a dry run of an upgrade found.

    Attributes:
        release: the version wanted. snapshot: where the state before is kept.
        problems: what is in the way; with one, nothing is done.
    """

    release: str
    snapshot: str
    outcomes: Mapping[Key, Outcome]
    problems: Sequence[Problem]

    @property
    def done(self) -> bool:
        """Whether there is nothing to do."""
        return all(item.state is State.FITS for item in self.outcomes.values())


class Watcher(Protocol):
    """Who has a cluster upgraded: shows it to people, and decides."""

    def look(self, site: Site, steps: Sequence[Step]) -> dict[Key, Outcome]:
        """Call :func:`look`."""

    def planned(self, plan: Plan) -> None:
        """Show it; what is raised is the end: nothing has been changed yet."""

    def run(self, steps: Sequence[Step]) -> None:
        """Run these steps on the site that its file describes; a step that fails is raised."""

    def say(self, told: str) -> None:
        """Tell one thing that was done."""


def upgrade(root: Path, home: Path, version: str, watcher: Watcher, *, force: bool, timeout_s: int) -> Plan:
    """Bring the cluster of a checkout to a newer Kubernetes, node by node, after a snapshot.

    Args:
        version: empty: as the site's file says; else it is written there, once nothing is in the way.
        force, timeout_s: of :func:`upgrade_steps`.

    Raises:
        UserError: it cannot be upgraded so, or a step failed; the next run goes on.
    """
    site, release = site_of(load_site(root / SITE_FILE), version)
    steps, snapshot = upgrade_steps(site, root, home, force=force, timeout_s=timeout_s)
    outcomes = watcher.look(site, steps)
    plan = Plan(release, snapshot, outcomes, obstacles(outcomes))
    watcher.planned(plan)
    if plan.problems:
        raise UserError(plan.problems)
    if not plan.done:
        watcher.run([step for step in steps if step.name in CHECKS])
    if write_version(root / SITE_FILE, release):
        watcher.say(f"{SITE_FILE} says {release} now.")
    if not plan.done:
        watcher.run(steps)
        fetch_kubeconfig(site, home)  # its certificate is renewed as well
    return plan


def site_of(site: Site, version: str) -> tuple[Site, str]:
    """Return the site with the version of Kubernetes that is wanted, and that; empty: the one that its file says.

    Raises:
        UserError: it is no release, or the site has no cluster.
    """
    if site.kubernetes is None or site.network is None:
        raise UserError(Problem(SITE_FILE, "describes no cluster", "add `kubernetes:` and a control plane"))
    wanted = version.removeprefix("v") or site.kubernetes.version
    try:
        check_version(wanted)
    except ValueError as error:
        raise UserError(Problem(f"version {wanted!r}", "is none to upgrade to", str(error))) from None
    kubernetes = site.kubernetes.model_copy(update={"version": wanted})
    return site.model_copy(update={"kubernetes": kubernetes}), wanted


def upgrade_steps(
    site: Site, root: Path, home: Path, *, force: bool = False, timeout_s: int = DRAIN_S
) -> tuple[list[Step], str]:
    """Return the steps that bring all nodes to the site's version, one after the other, and where the snapshot goes.

    Args:
        site: of :func:`site_of`. root: the checkout. home: its state folder.
        force, timeout_s: of :func:`infra.site.life.upgrading.empty_step`.

    Raises:
        UserError: the site has no control plane.
    """
    machines, wanted = machines_of(site, home), site.kubernetes
    found = holder(machines, "control-plane")
    if wanted is None or found is None:
        raise UserError(Problem(SITE_FILE, "describes no cluster", "add `kubernetes:` and a control plane"))
    name, run = found.name, secrets.token_hex(4)
    workers = [item.name for item in machines.values() if "worker" in item.roles and item is not found]
    place = snapshot_plan(site, wanted, root, home).place
    where = f"on the share, {_shown(place)}" if place else f"{name}, {STORE}"
    steps = [nodes_step(name, workers, wanted)]
    allowed: tuple[Key, ...] = ((name, "nodes"),)
    # A bundle with the new release has to be there before apt is asked for it.
    sources = [
        replace(step, after=allowed)
        for step in site_steps(site, root, home)
        if step.name == "packages" and step.machine in (name, *workers)
    ]
    carried = {step.machine: ((step.machine, step.name),) for step in sources}
    bundle = sole_bundle(site.packages, root) if site.packages is not None else None
    offers = [offer_step(node, wanted, run, (*allowed, *carried.get(node, ())), bundle) for node in (name, *workers)]
    steps += [*sources, *offers]
    offered = tuple((step.machine, step.name) for step in offers)
    snapshot = snapshot_step(name, wanted, run, where, (*allowed, *offered))
    upgrade = control_plane_step(name, wanted, ((name, snapshot.name),))
    steps += [snapshot, upgrade]
    last: Key = (name, upgrade.name)
    for node in (name, *workers):
        drain = empty_step(name, node, wanted, (last,), force=force, timeout_s=timeout_s)
        kubelet = kubelet_step(node, wanted, ((name, drain.name),), worker=node != name)
        back = back_step(name, node, wanted, ((node, kubelet.name),))
        steps += [drain, kubelet, back]
        last = (name, back.name)
    return steps, where


def look(site: Site, root: Path, home: Path, report: Report, steps: Sequence[Step]) -> dict[Key, Outcome]:
    """Return what a dry run of :func:`upgrade_steps` finds, once the API server answers: one that starts is waited for.

    Args:
        site, root, home, report: of :func:`infra.site.session.run_site`.

    Raises:
        UserError: the site cannot be planned, or somebody else changes it while this waits.
    """
    outcomes = run_site(site, root, home, report, apply=False, steps=steps)
    first = [step for step in steps if any(change.actions for change in outcomes[step.machine, step.name].changes)][:1]
    if [step.name for step in first] != ["nodes"]:
        return outcomes
    waited = run_site(site, root, home, report, apply=True, steps=first)
    return waited if problems_of(waited) else run_site(site, root, home, report, apply=False, steps=steps)


def obstacles(outcomes: Mapping[Key, Outcome]) -> list[Problem]:
    """Return what is in an upgrade's way by a dry run of its steps; where the cluster itself is, only that."""
    for only in (True, False):
        told = {key: item for key, item in outcomes.items() if (key[1] == "nodes") is only}
        problems = problems_of(told) + list(_by_hand(told))
        if problems:
            return problems
    return []


def write_version(path: Path, version: str) -> bool:
    """Write the version of Kubernetes into a site's file, whose other text stays as it is; False: it says so already.

    Raises:
        UserError: the file cannot be read or written.
    """
    site = load_site(path)
    if site.kubernetes is None or site.kubernetes.version == version:
        return False
    text = path.read_bytes().decode()
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for key in ("kubernetes", "version"):
        node = next(value for name, value in node.value if name.value == key)
    draft = path.with_name(f".{path.name}.new")
    try:
        draft.write_bytes((text[: node.start_mark.index] + version + text[node.end_mark.index :]).encode())
        draft.chmod(path.stat().st_mode & 0o777)
        load_site(draft)
        draft.replace(path)
    except OSError as error:
        remedy = f"write `version: {version}` there yourself"
        raise UserError(Problem(f"{path} kubernetes.version", f"cannot be written: {error.strerror}", remedy)) from None
    finally:
        draft.unlink(missing_ok=True)
    return True


def _by_hand(outcomes: Mapping[Key, Outcome]) -> Iterator[Problem]:
    for (machine, name), outcome in outcomes.items():
        for change in outcome.changes:
            if change.by_hand:
                yield Problem(f"{machine}, step {name}", f"{change.what}: {change.why}", change.by_hand)


def _shown(place: SharePlace) -> str:
    return f"//{place.host}/{place.share}/{place.folder}"
