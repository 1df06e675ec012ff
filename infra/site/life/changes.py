"""Which steps the changes of a site's life consist of: a worker more or less, a cluster restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from configs.problems import Problem, UserError
from configs.site import SITE_FILE, Site
from infra.kubeadm.configuration import cluster_of
from infra.kubeadm.releases import parts
from infra.kubeadm.snapshots import RELEASE
from infra.site.inventory import SiteMachine, holder, machines_of, site_folder
from infra.site.life.backup import CLUSTER
from infra.site.life.leaving import DRAIN_S, delete_step, drain_step, leave_step, ready_step, return_step
from infra.site.life.restore import refresh_step, restore_step
from infra.site.passwords import find_or_make_key
from infra.site.plan import site_steps
from infra.site.step import Step
from infra.site.steps.control_plane import control_plane_files

BEFORE_RESTORE = ("image", "vm", "ready", "base", "runtime", "kubernetes")


def add_worker_steps(site: Site, root: Path, home: Path, name: str) -> list[Step]:
    """Return the steps that make machine ``name`` of the site's file a worker, up to where its node is ready.

    Args:
        root: the checkout. home: its state folder.

    Raises:
        UserError: the file has no such worker.
    """
    control_plane = _worker(site, home, name)
    own = _own(site, root, home, name)
    back = return_step(name)
    ready = ready_step(control_plane.name, name, ((name, "join"),))
    waits = {"join": (name, back.name), "services": (ready.machine, ready.name)}
    own = [replace(step, after=(*step.after, waits[step.name])) if step.name in waits else step for step in own]
    # A worker of a newer release than the control plane is none: that one's packages are looked at first.
    same = (control_plane.name, "kubernetes")
    first = [step for step in site_steps(site, root, home) if (step.machine, step.name) == same]
    return [*first, back, *own, ready]


def remove_worker_steps(
    site: Site, home: Path, name: str, *, force: bool = False, lost: bool = False, timeout_s: int = DRAIN_S
) -> list[Step]:
    """Return the steps that take machine ``name`` out of the cluster; what is on it stays.

    Args:
        home: the checkout's state folder. force: see :func:`infra.site.life.leaving.drain_step`.
        lost: the machine is gone for good: the cluster forgets it, and nobody asks it anything.
        timeout_s: seconds for the drain.

    Raises:
        UserError: the file has no such worker.
    """
    control_plane = _worker(site, home, name).name
    if lost:
        return [delete_step(control_plane, name)]
    drain = drain_step(control_plane, name, force=force, timeout_s=timeout_s)
    leave = leave_step(name, ((control_plane, drain.name),))
    return [drain, leave, delete_step(control_plane, name, ((name, leave.name),))]


def restore_steps(site: Site, root: Path, home: Path, members: Mapping[str, bytes], replaced: str = "") -> list[Step]:
    """Return the steps from a bare machine to the cluster of a backup; none: the backup has no cluster.

    Args:
        root: the checkout. home: its state folder, with what was in the backup.
        members: of the backup.
        replaced: the control plane's name, typed: what is left of a cluster there may be moved aside.

    Raises:
        UserError: another name was typed, the site's file has no cluster, or it is one of another release than may
            follow that of the backup.
    """
    cluster = {
        name.removeprefix(f"{CLUSTER}/"): data for name, data in members.items() if name.startswith(f"{CLUSTER}/")
    }
    if not cluster:
        return []
    control_plane = _control_plane(site, home)
    name = control_plane.name
    if replaced not in ("", name):
        raise UserError(Problem(f"replace {replaced!r}", "is not the control plane's name", f"type {name}"))
    assert site.kubernetes is not None  # noqa: S101 - or there is no control plane
    assert site.network is not None  # noqa: S101
    wanted = cluster_of(site.kubernetes, site.network)
    _check_release(cluster.get(RELEASE, b"").decode().strip(), wanted.version)
    key = find_or_make_key(site_folder(home) / "encryption-key", "the key of the cluster's secrets")
    works = "worker" in control_plane.roles
    files = control_plane_files(name, control_plane.address, wanted, key, works=works)
    chosen = _own(site, root, home, name)
    before = [step for step in chosen if step.name in BEFORE_RESTORE]
    restore = restore_step(
        name, control_plane.address, cluster, files, ((name, BEFORE_RESTORE[-1]),), replace=bool(replaced)
    )
    after = [replace(step, after=(*step.after, (name, "restore"))) for step in chosen if step.name == "control-plane"]
    workers = [
        item.name for item in machines_of(site, home).values() if "worker" in item.roles and item != control_plane
    ]
    refresh = [refresh_step(worker, cluster, ((name, "control-plane"),)) for worker in workers]
    return [*before, restore, *after, *refresh]


def _check_release(taken: str, wanted: str) -> None:
    """Check that the API server of ``wanted`` can read what that of ``taken`` has written; empty: nobody wrote it down.

    Raises:
        UserError: it is older, or more than one minor version newer.
    """
    old, new = parts(taken)[:2], parts(wanted)[:2]
    if not taken or old == new or (old[0], old[1] + 1) == new:
        return
    why = "cannot read what a newer one wrote" if new < old else "may follow one minor version before it, and no more"
    remedy = f"write `version: {taken}` there" + (
        ", or name a snapshot from before that upgrade" if new < old else ", restore, and upgrade step by step"
    )
    raise UserError(
        Problem("the snapshot", f"is of Kubernetes {taken}, and {SITE_FILE} says {wanted}, which {why}", remedy)
    )


def _own(site: Site, root: Path, home: Path, name: str) -> list[Step]:
    """Return the steps of one machine, and of a VM's host what the VM is made from."""
    host = site.vms[name].host if name in site.vms else ""
    steps = site_steps(site, root, home)
    return [step for step in steps if step.machine == name or (step.machine, step.name) == (host, "image")]


def _worker(site: Site, home: Path, name: str) -> SiteMachine:
    """Return the control plane of worker ``name``."""
    control_plane, machines = _control_plane(site, home), machines_of(site, home)
    workers = [item.name for item in machines.values() if "worker" in item.roles and item != control_plane]
    if name not in workers:
        there = f"one of {', '.join(workers)}" if workers else "give a machine of its own `roles: [worker]`"
        raise UserError(Problem(f"worker {name!r}", f"is none in {SITE_FILE}", there))
    return control_plane


def _control_plane(site: Site, home: Path) -> SiteMachine:
    found = holder(machines_of(site, home), "control-plane")
    if found is None or site.kubernetes is None or site.network is None:
        remedy = "give one machine `roles: [control-plane]`, and add `kubernetes:` and `network:`"
        raise UserError(Problem(SITE_FILE, "describes no cluster", remedy))
    return found
