"""A backup's file and what a checkout gets back from it: whole, private, and never over what is there."""

from __future__ import annotations

import datetime
import io
import tarfile
from pathlib import Path

import pytest

from configs.problems import UserError
from configs.site import Site, load_site
from infra.age.files import encrypt_for_recipients
from infra.age.keys import make_identity, recipient_of
from infra.site.engine import State
from infra.site.life.archive import ArchiveError, pack, read_tar, unpack
from infra.site.life.backup import Closing, back_up, local_members, passphrase_in, write_backup
from infra.site.life.restore_state import (
    identity_in,
    open_by,
    read_backup,
    restore_state,
    wants_passphrase,
    with_snapshot,
)
from infra.site.plan import site_steps
from infra.site.step import Step

NOW = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
MEMBERS = {"configs/site.yaml": b"text", "state/authority/ca.key": b"\x00\xffbytes", "cluster/snapshot.db": b"x" * 9999}
PASSPHRASE = "a passphrase with blanks"
FILE = """\
storage: {kind: smb, url: "smb://alice@10.0.0.2/share/dvc", password: {file: secrets/share-password}}
registry: {address: "10.0.0.2:5000", user: mlops, password: {file: .mlops/registry-password}}
network: {cidr: 10.0.0.0/24, gateway: 10.0.0.1}
hosts: {one: {address: 10.0.0.2, roles: [storage, registry]}}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose site has its keys and passwords."""
    root = tmp_path / "checkout"
    (root / "configs").mkdir(parents=True)
    (root / "configs/site.yaml").write_text(FILE)
    site_steps(site_of(root), root, root / ".mlops")
    (root / ".mlops/site/lock").write_text("1\n")
    return root


def site_of(root: Path) -> Site:
    return load_site(root / "configs/site.yaml")


def heard(step: Step, state: State, detail: str) -> None:
    assert PASSPHRASE not in detail


def test_an_archive_gives_back_what_was_packed() -> None:
    members, about = unpack(pack(MEMBERS, {"cluster": "one"}, NOW))
    assert members == MEMBERS
    assert about == {"made": "2026-03-01T00:00:00+00:00", "cluster": "one"}


@pytest.mark.parametrize("change", ["more", "less", "another", "format", "none"])
def test_what_is_not_as_the_manifest_says_is_refused(change: str) -> None:
    members = read_tar(pack(MEMBERS, {}, NOW))
    if change == "more":
        members["state/more"] = b""
    elif change == "less":
        del members["cluster/snapshot.db"]
    elif change == "another":
        members["configs/site.yaml"] = b"Text"
    elif change == "format":
        members["manifest.json"] = members["manifest.json"].replace(b'"format": 1', b'"format": 9')
    else:
        del members["manifest.json"]
    with pytest.raises(ArchiveError, match=r"manifest|format 9"):
        unpack(tar_of(members))


def test_a_name_that_leads_out_of_an_archive_is_refused() -> None:
    for name in ("../up", "/etc/passwd", "state/../../up"):
        with pytest.raises(ArchiveError, match="leads out"):
            read_tar(tar_of({name: b""}))
    with pytest.raises(ArchiveError, match="cannot be read"):
        read_tar(pack(MEMBERS, {}, NOW)[:-200])


def tar_of(members: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return written.getvalue()


def test_a_backup_is_closed_by_one_good_thing() -> None:
    for recipients, passphrase, why in (
        ((), "", "one thing"),
        ((recipient_of(make_identity()),), PASSPHRASE, "one thing"),
        ((), "short", "too short"),
        (("age1wrong", "ssh-ed25519 AAAA"), "", "recipient 'ssh-ed25519 AAAA'"),
    ):
        with pytest.raises(UserError, match=why):
            Closing(recipients, passphrase)
    assert PASSPHRASE not in repr(Closing(passphrase=PASSPHRASE))


def test_a_backup_is_private_whole_and_never_written_over(tmp_path: Path) -> None:
    path, identity = tmp_path / "new/site.age", make_identity()
    write_backup(path, MEMBERS, Closing((recipient_of(identity),)), {})
    assert path.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["site.age"]
    assert read_backup(path, open_by(identity=identity))[0] == MEMBERS
    assert not wants_passphrase(path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="is there already"):
        write_backup(path, {}, Closing(passphrase=PASSPHRASE), {})
    assert path.read_bytes() == before
    with pytest.raises(UserError, match="cannot be opened"):
        read_backup(path, open_by(identity=make_identity()))
    path.write_bytes(before[:-1])
    with pytest.raises(UserError, match="cannot be opened"):
        read_backup(path, open_by(identity=identity))


def test_a_lost_checkout_gets_its_file_keys_and_passwords_back(checkout: Path, tmp_path: Path) -> None:
    outcomes, members = back_up(
        site_of(checkout), checkout, checkout / ".mlops", tmp_path, Closing(passphrase=PASSPHRASE), heard
    )
    assert {item.state for item in outcomes.values()} == {State.CHANGED}
    assert {"state/authority/ca.key", "passwords/storage", "passwords/registry"} <= set(members)
    assert not any("lock" in name for name in members)
    (path,) = tmp_path.glob("site-*.age")
    assert wants_passphrase(path)
    found, _ = read_backup(path, open_by(passphrase=PASSPHRASE))
    root = tmp_path / "elsewhere"
    root.mkdir()
    written = restore_state(found, root, root / ".mlops")
    assert {str(item.relative_to(root)) for item in written} >= {
        "configs/site.yaml",
        "secrets/share-password",
        ".mlops/registry-password",
        ".mlops/site/authority/ca.key",
    }
    for item in written:
        assert item.read_bytes() == (checkout / item.relative_to(root)).read_bytes()
        assert item.name == "site.yaml" or item.stat().st_mode & 0o777 == 0o600
    # The steps find all of it, and make nothing anew.
    site_steps(site_of(root), root, root / ".mlops")
    assert local_members(site_of(root), root, root / ".mlops") == members
    assert restore_state(found, root, root / ".mlops") == []


def test_another_sites_keys_are_not_mixed_with_what_is_there(checkout: Path, tmp_path: Path) -> None:
    found = local_members(site_of(checkout), checkout, checkout / ".mlops")
    (checkout / ".mlops/site/authority/ca.key").write_text("another")
    (checkout / "secrets/share-password").unlink()
    with pytest.raises(UserError, match=r"authority/ca\.key: is another one"):
        restore_state(found, checkout, checkout / ".mlops")
    assert not (checkout / "secrets/share-password").exists()


def test_a_passphrase_or_identity_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    path.write_text(f"{PASSPHRASE}\n")
    path.chmod(0o640)
    for read in (passphrase_in, identity_in):
        with pytest.raises(UserError, match="others can read"):
            read(path)
    path.chmod(0o600)
    assert passphrase_in(path) == PASSPHRASE
    path.write_text("# public key: age1...\nAGE-SECRET-KEY-1\n")
    assert identity_in(path) == "AGE-SECRET-KEY-1"
    path.write_text("# nothing\n")
    with pytest.raises(UserError, match="holds 0 identities"):
        identity_in(path)


def test_a_newer_snapshot_of_the_share_takes_the_backups_place(tmp_path: Path) -> None:
    identity, path = make_identity(), tmp_path / "etcd-20260301T000000Z.tar.gz.age"
    newer = tar_of({"snapshot.db": b"newer", "etc/kubernetes/pki/ca.key": b"key"})
    path.write_bytes(encrypt_for_recipients(newer, [recipient_of(identity)]))
    members = {**MEMBERS, "state/backup-identity": f"{identity}\n".encode()}
    found = with_snapshot(members, path)
    assert found["cluster/snapshot.db"] == b"newer"
    assert found["cluster/etc/kubernetes/pki/ca.key"] == b"key"
    assert found["state/authority/ca.key"] == MEMBERS["state/authority/ca.key"]
    other = {**MEMBERS, "state/backup-identity": make_identity().encode()}
    with pytest.raises(UserError, match="cannot be read"):
        with_snapshot(other, path)
