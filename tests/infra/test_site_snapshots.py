"""The step ``snapshots``: what is there in, what is still to be done out; and no secret where others see it."""

from __future__ import annotations

import datetime
import hashlib
import subprocess

import pytest

from infra.kubeadm.snapshots import SCRIPT, SharePlace, SnapshotPlan, snapshot_files, snapshot_time, take_snapshot
from infra.machines.commands import File
from infra.site.facts import Fact, Reading
from infra.site.reading import file_fact, packages_fact, unit_fact
from infra.site.step import Change
from infra.site.steps.snapshots import WITH_SHARE, snapshots_step

PLACE = SharePlace("storage", 445, "share", "team/backups/cluster", "alice", "a secret", encrypt=True)
PLAN = SnapshotPlan("age1recipient", 6, 28, PLACE)
STEP = snapshots_step("master", PLAN, ())
NOW = datetime.datetime(2026, 3, 1, 12, 0, tzinfo=datetime.UTC)
RUNS = "LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nNeedDaemonReload=no\nMarked=1\n"


def fact(word: str) -> Fact:
    return next(item for item in STEP.facts if word in " ".join(item.argv))


def as_written(file: File) -> Reading:
    shown = "" if file.secret else file.text
    return Reading(0, f"{file.mode:o} {file.group}\n{hashlib.sha256(file.text.encode()).hexdigest()}  -\n{shown}")


def found(here: str, there: str, failed: str = "inactive", why: str = "") -> list[Change]:
    """What the step wants of a machine where all is in place, and these are the newest snapshots."""
    known = {file_fact(file): as_written(file) for file in snapshot_files(PLAN)}
    known[packages_fact(WITH_SHARE)] = Reading(0, "age ii 1.1\nsmbclient ii 4.17\n")
    known[unit_fact("mlops-etcd-snapshot.timer")] = Reading(0, RUNS)
    known[fact("is-failed")] = Reading(1, f"{failed}\n")
    known[fact("journalctl")] = Reading(0, why)
    known[fact("date -u")] = Reading(0, f"now {NOW.timestamp():.0f}\nhere {here}\nthere {there}\n")
    return list(STEP.changes(known))


def named(hours_ago: float) -> str:
    return f"etcd-{NOW - datetime.timedelta(hours=hours_ago):%Y%m%dT%H%M%SZ}.tar.gz.age"


def test_new_snapshots_in_both_places_are_as_wanted() -> None:
    assert found(named(5), named(11)) == []


@pytest.mark.parametrize(
    ("here", "there", "why"),
    [
        ("", "", "there is none on this machine yet"),
        (named(1), "", "there is none on the share yet"),
        (named(13), named(13), "the newest on this machine is of 2026-02-28 23:00 UTC, 13 hours ago"),
        (named(1), named(30), "the newest on the share is of 2026-02-28 06:00 UTC, 30 hours ago"),
    ],
)
def test_a_missing_or_old_one_is_told_and_taken(here: str, there: str, why: str) -> None:
    (change,) = found(here, there)
    assert (change.why, change.actions) == (why, (take_snapshot(),))


def test_a_failed_one_is_told_with_its_reason() -> None:
    (change,) = found(named(1), named(1), "failed", "session setup failed\nthe share is away\n")
    assert change.why == "the last one failed: session setup failed the share is away"


def test_a_bare_machine_gets_packages_files_and_timer_before_the_first_snapshot() -> None:
    wanted = list(STEP.changes({item: Reading(1, "") for item in STEP.facts}))
    assert wanted[0].what == "install age smbclient"
    assert [change.what.split()[0] for change in wanted[1:]] == ["write"] * 5 + ["start", "take"]
    assert STEP.repairable
    alone = snapshots_step("master", SnapshotPlan("age1recipient", 6, 28, None), ())
    wanted = list(alone.changes({item: Reading(1, "") for item in alone.facts}))
    assert wanted[0].what == "install age"
    assert not any("credentials" in change.what for change in wanted)


def test_the_password_is_in_a_file_of_root_and_nowhere_else() -> None:
    files = {file.path.name: file for file in snapshot_files(PLAN)}
    (credentials,) = (file for file in files.values() if PLACE.password in file.text)
    assert (credentials.mode, credentials.secret) == (0o600, True)
    shown = repr(files) + repr(PLAN) + repr(list(STEP.changes({item: Reading(1, "") for item in STEP.facts})))
    assert PLACE.password not in shown
    assert "--client-protection=encrypt" in files[SCRIPT.name].text
    assert 'mkdir "team"; mkdir "team/backups"; mkdir "team/backups/cluster"' in files[SCRIPT.name].text


@pytest.mark.parametrize("place", [PLACE, None])
def test_the_scripts_are_shell(place: SharePlace | None) -> None:
    for file in snapshot_files(SnapshotPlan("age1recipient", 6, 28, place)):
        if file.mode == 0o755:
            subprocess.run(["sh", "-n"], input=file.text, text=True, check=True)


@pytest.mark.parametrize("name", ["etcd-20261341T000000Z.tar.gz.age", "etcd-1.tar.gz.age", "lock", "x.part"])
def test_what_is_no_name_of_a_snapshot_has_no_time(name: str) -> None:
    assert snapshot_time(name) is None
