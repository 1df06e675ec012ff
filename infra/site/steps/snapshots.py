"""Step ``snapshots``: :mod:`infra.kubeadm.snapshots` on the control plane, and whether new ones come."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from configs.kubernetes import Kubernetes
from configs.site import Site
from configs.storage import SmbStorage
from infra.age.keys import recipient_of
from infra.kubeadm.snapshots import (
    BROUGHT,
    PREFIX,
    STORE,
    TIMER,
    UNIT,
    SharePlace,
    SnapshotPlan,
    snapshot_files,
    snapshot_time,
    take_snapshot,
)
from infra.site.facts import Fact, Facts
from infra.site.inventory import site_folder
from infra.site.passwords import find_or_make_identity, find_or_make_password
from infra.site.reading import file_changes, file_fact, package_changes, packages_fact, unit_changes, unit_fact
from infra.site.step import Change, Step

IDENTITY = "backup-identity"
"""File in the site's folder: the key that reads its snapshots."""
PACKAGES = ("age",)
WITH_SHARE = ("age", "smbclient")
# The newest on the machine and on the share, by the machine's own clock.
_LOOK = f"""\
echo now $(date -u +%s)
echo here $(ls {STORE} 2>/dev/null | grep '^{PREFIX}' | tail -n 1)
echo there $(cat {BROUGHT} 2>/dev/null)
"""
_NEWEST = Fact(("sh", "-c", _LOOK))
_FAILED = Fact(("systemctl", "is-failed", UNIT))
# What it said itself, without systemd's words about it.
_WHY = Fact(("journalctl", f"_SYSTEMD_UNIT={UNIT}", "--lines=2", "--output=cat", "--no-pager"))


def snapshot_plan(site: Site, kubernetes: Kubernetes, root: Path, home: Path) -> SnapshotPlan:
    """Return how etcd's snapshots are taken: to the share where there is one of Samba, else they stay where they are.

    Args:
        root: the checkout. home: its state folder; the key that reads them is made there.
    """
    identity = find_or_make_identity(site_folder(home) / IDENTITY, "the key of the site's snapshots")
    place = None
    if isinstance(site.storage, SmbStorage):
        share = site.storage
        place = SharePlace(
            host=share.place.host,
            port=share.place.port,
            share=share.place.share,
            folder=str(PurePosixPath(share.place.folder).parent / "backups" / kubernetes.endpoint),
            user=share.account,
            password=find_or_make_password(share.password, f"password of {share.account} at {share.place}", root, home),
            domain=share.domain or share.place.domain,
            encrypt=bool(share.encrypt),
        )
    wanted = kubernetes.snapshots
    return SnapshotPlan(recipient_of(identity), wanted.every_hours, wanted.keep, place)


def snapshots_step(machine: str, plan: SnapshotPlan, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step for the control plane ``machine``.

    A check may apply it: what it does at most is take one more snapshot.
    """
    files = snapshot_files(plan)
    packages = PACKAGES if plan.place is None else WITH_SHARE
    # One may be late: a machine that was off, a share that was away.
    limit_hours = 2 * plan.every_hours

    def changes(facts: Facts) -> Iterator[Change]:
        yield from package_changes(packages, facts)
        timer_changed = False
        for file in files:
            changed = file_changes(file, facts, restarts=(TIMER,) if file.path.name in (TIMER, UNIT) else ())
            timer_changed |= bool(changed) and file.path.name in (TIMER, UNIT)
            yield from changed
        yield from unit_changes(TIMER, facts, changed=timer_changed)
        why = _missing(facts, limit_hours, shared=plan.place is not None)
        if why:
            yield Change("take a snapshot of etcd", why, (take_snapshot(),))

    facts = (packages_fact(packages), *map(file_fact, files), unit_fact(TIMER), _NEWEST, _FAILED, _WHY)
    return Step("snapshots", machine, facts, changes, after)


def _missing(facts: Facts, limit_hours: float, *, shared: bool) -> str:
    """Return why a snapshot is wanted now; empty: there are those that there should be."""
    if facts[_FAILED].text.strip() == "failed":
        return f"the last one failed: {' '.join(facts[_WHY].text.split())}"
    said = dict(line.split(" ", 1) for line in facts[_NEWEST].text.splitlines() if " " in line)
    now = datetime.datetime.fromtimestamp(int(said.get("now", "0")), datetime.UTC)
    for place, name in (("this machine", "here"), ("the share", "there"))[: 2 if shared else 1]:
        when = snapshot_time(said.get(name, "").strip())
        if when is None:
            return f"there is none on {place} yet"
        hours = (now - when).total_seconds() / 3600
        if hours > limit_hours:
            return f"the newest on {place} is of {when:%Y-%m-%d %H:%M} UTC, {hours:.0f} hours ago"
    return ""
