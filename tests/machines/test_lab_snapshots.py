"""Snapshots of a real etcd: taken, verified, encrypted, brought to a real share, kept while that is away."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from lab import Lab, LabError, LabMachine
from lab_etcd import IMAGE, etcdctl, give_image, install
from lab_sites import LabSite, ended, start_flow

from infra.age.files import AgeError, decrypt_by_identity
from infra.age.keys import make_identity
from infra.kubeadm.etcd import OFFLINE, TOOLS
from infra.kubeadm.snapshots import SCRIPT, STORE, TIMER, UNIT
from infra.site.engine import State
from infra.site.life.backup import Closing, back_up
from infra.site.life.restore_state import open_by, read_backup
from infra.site.step import Step

pytestmark = pytest.mark.machine
KUBERNETES = "kubernetes: {version: 1.33.5, packages: system, snapshots: {every_hours: 1, keep: 3}}\n"
CHECKOUT = Path(__file__).parents[2]
VALUE = "a value of the cluster"


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> LabSite:
    """A share and a control plane's etcd, with the step applied."""
    made = LabSite(lab, tmp_path_factory.mktemp("checkout"), nodes={"master": "control-plane"}, more=KUBERNETES)
    master = made.machines["master"]
    install(master)
    give_image(master)
    etcdctl(master, "put", "/registry/tried", VALUE)
    wanted = [
        item for item in made.steps() if item.name in ("base", "storage", "snapshots") and item.machine != "registry"
    ]
    outcomes = made.run(apply=True, steps=wanted)
    assert {key: item.error for key, item in outcomes.items() if item.error} == {}
    return made


def step(site: LabSite) -> list[Step]:
    return [item for item in site.steps() if item.name == "snapshots"]


def listed(site: LabSite) -> list[str]:
    """What the share has, as its user sees it."""
    return sorted(path.name for path in folder(site).glob("etcd-*"))


def folder(site: LabSite) -> Path:
    return site.machines["storage"].root / "srv/samba/sambashare/backups/cluster"


def here(master: LabMachine) -> list[str]:
    return sorted(path.name for path in (master.root / str(STORE).lstrip("/")).glob("etcd-*"))


def take(master: LabMachine) -> str:
    """Take one more, of another second than the last."""
    time.sleep(1.1)
    return master.run(str(SCRIPT))


def test_the_first_snapshot_is_on_the_share_and_a_second_run_changes_nothing(site: LabSite) -> None:
    assert len(listed(site)) == 1
    assert site.run(apply=True, steps=step(site))["master", "snapshots"].state is State.FITS
    assert site.machines["master"].run("cat", str(TOOLS / "image")) == IMAGE
    assert "--data-dir" in site.machines["master"].run(str(OFFLINE), "snapshot", "restore", "--help")


def test_only_the_sites_own_key_reads_it(site: LabSite) -> None:
    (name,) = listed(site)
    encrypted = (folder(site) / name).read_bytes()
    identity = (site.home / "site/backup-identity").read_text().strip()
    with tarfile.open(fileobj=io.BytesIO(decrypt_by_identity(encrypted, identity))) as tar:
        names = tar.getnames()
        key = tar.extractfile("etc/kubernetes/pki/ca.key")
        snapshot = tar.extractfile("snapshot.db")
        assert key is not None
        assert snapshot is not None
        secret, data = key.read(), snapshot.read()
        status = tar.extractfile("status.json")
        assert status is not None
        assert json.load(status)["totalKey"] > 0
    assert {"status.json", "etc/kubernetes/encryption.yaml", "etc/kubernetes/pki/sa.key"} <= set(names)
    assert VALUE.encode() in data
    with pytest.raises(AgeError):
        decrypt_by_identity(encrypted, make_identity())
    # Neither the keys nor the contents are on the storage machine, nor the reading key on the control plane.
    line = secret.decode().splitlines()[1]
    for machine, words in (("storage", (line, VALUE, "secret of the cluster")), ("master", (identity,))):
        for word in words:
            assert holders(site.machines[machine], word) == []


def holders(machine: LabMachine, word: str) -> list[str]:
    command = [
        "grep",
        "-rlaF",
        "--devices=skip",
        "-f",
        "-",
        *(str(machine.root / top) for top in ("etc", "srv", "var")),
    ]
    return subprocess.run(command, input=word, capture_output=True, text=True, check=False).stdout.splitlines()


def test_while_the_share_is_away_they_stay_here_and_are_brought_later(site: LabSite) -> None:
    master, storage = site.machines["master"], site.machines["storage"]
    storage.run("systemctl", "stop", "smbd")
    with pytest.raises(LabError, match=r"the share is away: 2 snapshots wait"):
        take(master)
    with pytest.raises(LabError):
        master.run("systemctl", "start", UNIT)
    assert len(listed(site)) == 1
    outcome = site.run(apply=False, steps=step(site))["master", "snapshots"]
    (change,) = outcome.changes
    assert (change.what, "the share is away" in change.why) == ("take a snapshot of etcd", True)
    failed = site.run(apply=True, steps=step(site))["master", "snapshots"]
    assert "the share is away" in str(failed.error)
    storage.run("systemctl", "start", "smbd")
    # What a check mends by itself.
    assert site.run(apply=True, steps=step(site))["master", "snapshots"].state is State.CHANGED
    assert len(listed(site)) == 3
    assert here(master) == listed(site)[-2:]


def test_the_last_ones_are_kept_and_a_half_brought_one_is_cleared_away(site: LabSite) -> None:
    master = site.machines["master"]
    first, *others = listed(site)
    (folder(site) / f"{first}.part").write_text("half")
    take(master)
    assert first not in listed(site)
    assert listed(site)[:-1] == others
    assert len(listed(site)) == 3


def test_a_run_killed_in_the_middle_leaves_no_half_snapshot(site: LabSite) -> None:
    master = site.machines["master"]
    tool = master.root / str(TOOLS / "etcdctl").lstrip("/")
    real = tool.rename(tool.with_name("real"))
    tool.write_text(f'#!/bin/sh\n{TOOLS}/real "$@" && touch /var/tmp/taken && sleep 60\n')
    tool.chmod(0o755)
    before = here(master)
    master.run("systemctl", "start", "--no-block", UNIT)
    deadline = time.monotonic() + 20
    while not (master.root / "var/tmp/taken").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    master.run("systemctl", "kill", "--signal=KILL", UNIT)
    real.replace(tool)
    assert here(master) == before
    take(master)
    assert here(master)[-1] > before[-1]
    assert not (master.root / str(STORE).lstrip("/") / "work").exists()
    master.run("systemctl", "reset-failed", UNIT)


def test_a_damaged_snapshot_is_none(site: LabSite) -> None:
    master = site.machines["master"]
    tool = master.root / str(TOOLS / "etcdctl").lstrip("/")
    real = tool.rename(tool.with_name("real"))
    spoil = "for file; do case $file in *snapshot.db) printf x | dd of=$file bs=1 seek=9000 conv=notrunc;; esac; done"
    tool.write_text(f'#!/bin/sh\n{TOOLS}/real "$@" && {{ {spoil}; }} 2>/dev/null\n')
    tool.chmod(0o755)
    before = listed(site)
    with pytest.raises(LabError, match="the snapshot is damaged"):
        take(master)
    real.replace(tool)
    assert listed(site) == before


def test_the_timer_takes_them_and_an_old_one_is_told(site: LabSite) -> None:
    master = site.machines["master"]
    assert "00/1:23:00" in master.run("systemctl", "cat", TIMER)
    before = listed(site)
    soon = master.root / f"run/systemd/system/{TIMER}.d/soon.conf"
    master.run("install", "-D", "/dev/null", f"/run/systemd/system/{TIMER}.d/soon.conf")
    master.run("sh", "-c", f"printf '[Timer]\\nOnCalendar=*:*:0/3\\n' >/run/systemd/system/{TIMER}.d/{soon.name}")
    master.run("systemctl", "daemon-reload")
    master.run("systemctl", "restart", TIMER)
    deadline = time.monotonic() + 20
    while listed(site)[-1] == before[-1]:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    master.run("rm", f"/run/systemd/system/{TIMER}.d/{soon.name}")
    master.run("systemctl", "daemon-reload")
    master.run("systemctl", "restart", TIMER)
    master.run("flock", f"{STORE}/lock", "true")
    # As if the newest were of hours ago.
    for name in here(master):
        master.run("mv", f"{STORE}/{name}", f"{STORE}/{name.replace(name[5:13], '20200101')}")
    outcome = site.run(apply=False, steps=step(site))["master", "snapshots"]
    assert "the newest on this machine is of 2020-01-01" in outcome.changes[0].why
    assert site.run(apply=True, steps=step(site))["master", "snapshots"].state is State.CHANGED


def test_a_backup_in_prefect_holds_a_fresh_snapshot_and_no_secret_is_told(site: LabSite) -> None:
    master = site.machines["master"]
    etcdctl(master, "put", "/registry/fresh", "written just before")
    passphrase = site.root / "passphrase"
    passphrase.touch(0o600)
    passphrase.write_text("a passphrase for the tests\n")
    subprocess.run(["git", "init", "--quiet", str(site.root)], check=True)
    closing = Closing(passphrase="a passphrase for the tests")
    outcomes, _ = back_up(site.site, site.root, site.home, site.root / "kept.age", closing, site.hear)
    assert "encrypts its secrets by another key" in str(outcomes["master", "backup"].error)
    assert not (site.root / "kept.age").exists()
    key = (site.home / "site/encryption-key").read_text()
    (master.root / "etc/kubernetes/encryption.yaml").write_text(key)
    code, said = ended(start_flow(site.root, "backup_site", to="kept.age", passphrase_file="passphrase"))
    assert (code, "Finished in state Completed()" in said) == (0, True), said
    members, _ = read_backup(site.root / "kept.age", open_by(passphrase="a passphrase for the tests"))
    assert b"written just before" in members["cluster/snapshot.db"]
    assert members["state/encryption-key"].decode() == key
    assert members["passwords/storage"] == (site.home / "share-password").read_bytes()
    # Prefect knows what is in it by name only.
    lines = {
        name: data.decode().strip().splitlines() for name, data in members.items() if name.endswith(("key", "word"))
    }
    secrets = {text[len(text) // 2] for text in lines.values()} | {"a passphrase for the tests"}
    told = said + "".join(
        path.read_text(errors="replace") for path in (site.root / "prefect").rglob("*") if path.is_file()
    )
    assert "cluster/etc/kubernetes/pki/ca.key" in told
    assert not [secret for secret in secrets if secret in told]


def test_the_machine_comes_back_with_its_timer(site: LabSite) -> None:
    master = site.machines["master"]
    master.cut_power()
    master.boot()
    master.wait()
    assert master.run("systemctl", "is-active", TIMER).strip() == "active"
