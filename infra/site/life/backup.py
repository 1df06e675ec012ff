"""A backup of a site: all that is needed to have it again when its control plane and this checkout's state are lost.

In one file: the cluster's CAs and a fresh snapshot of its etcd, the site's file, its state folder with CA, keys and
pinned host keys, and the passwords that it made. Everything in it is secret, so there is no backup in the clear.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from configs.problems import Problem, UserError
from configs.secret import PasswordReference
from configs.site import SITE_FILE, Site
from configs.storage import SmbStorage
from infra.age.files import (
    AgeError,
    decrypt_by_identity,
    decrypt_by_passphrase,
    encrypt_for_passphrase,
    encrypt_for_recipients,
)
from infra.age.keys import check_recipient
from infra.kubeadm.configuration import ENCRYPTION
from infra.kubeadm.snapshots import HERE, LIMIT_S, SCRIPT, STORE, SUFFIX
from infra.machines.commands import Command
from infra.machines.ssh import Machine
from infra.password import password_in, password_path
from infra.site.engine import Key, Outcome, Report, State
from infra.site.inventory import holder, machines_of, site_folder
from infra.site.life.archive import ArchiveError, pack, read_tar, unpack
from infra.site.session import reached_for
from infra.site.step import Change, Step
from infra.site.steps.snapshots import IDENTITY

HERE_ONLY = "this machine"
STATE, PASSWORDS, CLUSTER = "state", "passwords", "cluster"
SHORTEST = 12
"""Characters of a passphrase."""
_NO_SCRIPT = 44
# Of this machine alone, and made anew where they are missing.
_LEFT_OUT = ("lock", "known_hosts.lock", "known_hosts.new")


@dataclass(frozen=True)
class Closing:
    """How a backup is closed: for recipients of age, or by a passphrase; ``repr`` does not show that.

    Raises:
        UserError: none or both are given, or one of them is no good.
    """

    recipients: tuple[str, ...] = ()
    passphrase: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        problems = []
        if bool(self.recipients) == bool(self.passphrase):
            remedy = "name recipients of age (age1...), or a passphrase, and not both"
            problems.append(Problem("the backup", "is to be closed by one thing", remedy))
        if self.passphrase and len(self.passphrase) < SHORTEST:
            problems.append(Problem("the passphrase", "is too short", f"{SHORTEST} characters or more"))
        for recipient in self.recipients:
            try:
                check_recipient(recipient)
            except ValueError as error:
                remedy = "write one as `age-keygen` shows it: age1..."
                problems.append(Problem(f"recipient {recipient[:70]!r}", str(error), remedy))
        if problems:
            raise UserError(problems)

    def close(self, data: bytes) -> bytes:
        """Return ``data`` encrypted."""
        if self.passphrase:
            return encrypt_for_passphrase(data, self.passphrase)
        return encrypt_for_recipients(data, self.recipients)


def passphrase_in(path: Path) -> str:
    """Return the passphrase in a file that only its owner can read.

    Raises:
        UserError: there is none, or others can read it.
    """
    passphrase = password_in(path, "the backup's passphrase", f"write it there (chmod 600 {path})")
    if path.stat().st_mode & 0o077:
        raise UserError(Problem("the backup's passphrase", f"others can read {path}", f"chmod 600 {path}"))
    return passphrase


def back_up(
    site: Site, root: Path, home: Path, path: Path, closing: Closing, report: Report
) -> tuple[dict[Key, Outcome], dict[str, bytes]]:
    """Write a backup of a site to ``path``, with a fresh snapshot where the site has a cluster.

    Args:
        root: the checkout. home: its state folder.
        path: a new file, or a folder, in which the file is named by the time.

    Returns:
        What became of it, as of a step, and what is in it. A file is there only when all went well.

    Raises:
        UserError: the site cannot be read, or somebody else changes its control plane now.
    """
    if path.is_dir():
        path = path / f"site-{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}.age"
    step = backup_step(site, home)
    machine, clustered = step.machine, step.machine != HERE_ONLY
    began = time.monotonic()
    report(step, State.READING, "")
    try:
        if path.exists():
            raise UserError(Problem(str(path), "is there already", "name a new file: no backup is written over"))
        members = local_members(site, root, home)
        if clustered:
            report(step, State.APPLYING, "take a snapshot")
            with reached_for(site, root, home, {machine}) as machines:
                members |= cluster_members(machines[machine], home, lambda line: report(step, State.APPLYING, line))
        report(step, State.APPLYING, f"write {path}")
        write_backup(path, members, closing, {"cluster": site.kubernetes.endpoint if site.kubernetes else ""})
    except UserError as error:
        report(step, State.FAILED, str(error))
        return {(machine, step.name): Outcome(State.FAILED, (), error, 0.0, time.monotonic() - began)}, {}
    done = Change(f"write {path}", f"{len(members)} files, {path.stat().st_size >> 10} kB, read back")
    report(step, State.CHANGED, f"{done.what}: {done.why}")
    return {(machine, step.name): Outcome(State.CHANGED, (done,), None, 0.0, time.monotonic() - began)}, members


def backup_step(site: Site, home: Path) -> Step:
    """Return what a backup is told as: a step of the control plane, or of this machine where the site has none."""
    control_plane = holder(machines_of(site, home), "control-plane") if site.kubernetes is not None else None
    return Step("backup", control_plane.name if control_plane is not None else HERE_ONLY, (), lambda facts: ())


def local_members(site: Site, root: Path, home: Path) -> dict[str, bytes]:
    """Return what this checkout adds to a backup, by its name there."""
    folder = site_folder(home)
    members = {SITE_FILE: (root / SITE_FILE).read_bytes()}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in _LEFT_OUT:
            members[f"{STATE}/{path.relative_to(folder)}"] = path.read_bytes()
    for name, reference in password_references(site):
        given = password_path(reference, root)
        if given is not None and given.is_file():
            members[f"{PASSWORDS}/{name}"] = given.read_bytes()
    return members


def password_references(site: Site) -> Iterator[tuple[str, PasswordReference]]:
    """Yield the passwords that a site's file names, each with the name of its section."""
    if isinstance(site.storage, SmbStorage):
        yield "storage", site.storage.password
    if site.registry is not None and site.registry.password is not None:
        yield "registry", site.registry.password


def cluster_members(machine: Machine, home: Path, on_line: Callable[[str], None]) -> dict[str, bytes]:
    """Take a snapshot on the control plane, and return it with the cluster's keys, by their names in a backup.

    Raises:
        UserError: there is none, it cannot be read, or its secrets are encrypted by a key that the site does not have.
    """
    script = f"test -x {SCRIPT} || exit {_NO_SCRIPT}; exec {SCRIPT} {HERE}"
    accepted = frozenset({0, _NO_SCRIPT})
    done = machine.run(Command(("sh", "-c", script), accepted=accepted, timeout_s=LIMIT_S), on_line=on_line)
    if done.status == _NO_SCRIPT:
        remedy = f"`mlops site apply --machine {machine.login.name} --step snapshots` first"
        raise UserError(Problem(machine.login.name, "cannot take snapshots yet", remedy))
    said = done.stdout
    name = next((word for word in said.split() if word.endswith(SUFFIX)), "")
    taken = machine.read(STORE / name) if name else None
    folder = site_folder(home)
    where = f"the snapshot of {machine.login.name}"
    if taken is None:
        raise UserError(Problem(where, "is not where it should be", "look there: journalctl -u mlops-etcd-snapshot"))
    identity = password_in(folder / IDENTITY, "the key of the site's snapshots", "bring it back from a backup")
    try:
        found = read_tar(decrypt_by_identity(taken, identity))
    except (AgeError, ArchiveError) as error:
        remedy = "run `mlops site apply`: the machine may encrypt for the key of another checkout"
        raise UserError(Problem(where, f"cannot be read: {error}", remedy)) from None
    key = password_in(folder / "encryption-key", "the key of the cluster's secrets", "bring it back from a backup")
    if key.encode() not in found.get(str(ENCRYPTION).lstrip("/"), b""):
        what = f"the cluster encrypts its secrets by another key than {folder / 'encryption-key'} has"
        raise UserError(Problem(where, what, "bring that file back: without it the site cannot be restored"))
    return {f"{CLUSTER}/{name}": data for name, data in found.items()}


def write_backup(path: Path, members: dict[str, bytes], closing: Closing, about: dict[str, str]) -> None:
    """Write a backup (0600), whole or not at all, and read it back.

    Raises:
        UserError: a file of this name is there already, or it cannot be written, or does not come back as written.
    """
    if path.exists():
        raise UserError(Problem(str(path), "is there already", "name a new file: no backup is written over"))
    archive = pack(members, about, datetime.datetime.now(datetime.UTC))
    closed = closing.close(archive)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(closed)
            file.flush()
            os.fsync(file.fileno())
        # The private halves of recipients are elsewhere: what comes back is compared, and opened where it can be.
        same = draft.read_bytes() == closed
        opened = decrypt_by_passphrase(closed, closing.passphrase) if closing.passphrase else archive
        if not same or unpack(opened)[0] != members:
            raise UserError(Problem(str(path), "does not come back as it was written", "look at that disk"))
        os.link(draft, path)
    except OSError as error:
        raise UserError(Problem(str(path), f"cannot be written: {error.strerror}", "name another place")) from None
    finally:
        draft.unlink(missing_ok=True)
