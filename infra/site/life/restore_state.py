"""A backup's first half: the site's file, its state folder and its passwords, in a checkout that has lost them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from configs.problems import Problem, UserError
from configs.site import SITE_FILE, load_site
from infra.age.files import AgeError, asks_for_passphrase, decrypt_by_identity, decrypt_by_passphrase
from infra.password import password_in, password_path
from infra.site.inventory import site_folder
from infra.site.life.archive import ArchiveError, read_tar, unpack
from infra.site.life.backup import CLUSTER, PASSWORDS, STATE, password_references
from infra.site.steps.snapshots import IDENTITY
from infra.stack.credentials import write_private

# Another one of these, and the cluster's secrets, its snapshots or the registry's clients are lost.
ESSENTIAL = ("encryption-key", IDENTITY, "authority/ca.crt", "authority/ca.key", "id_ed25519")
Opener = Callable[[bytes], bytes]


def open_by(*, passphrase: str = "", identity: str = "") -> Opener:
    """Return what decrypts a backup: by the passphrase or the identity that it was closed for."""
    if passphrase:
        return partial(decrypt_by_passphrase, passphrase=passphrase)
    return partial(decrypt_by_identity, identity=identity)


def identity_in(path: Path) -> str:
    """Return the identity in a file as ``age-keygen`` writes it, comments left out.

    Raises:
        UserError: it cannot be read, or others can, or it holds no identity or more than one.
    """
    text = password_in(path, "the backup's identity", "name a file of age-keygen")
    if path.stat().st_mode & 0o077:
        raise UserError(Problem("the backup's identity", f"others can read {path}", f"chmod 600 {path}"))
    found = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(found) != 1:
        what = f"{path} holds {len(found)} identities"
        raise UserError(Problem("the backup's identity", what, "one line AGE-SECRET-KEY-1..."))
    return found[0]


def wants_passphrase(path: Path) -> bool:
    """Return whether a backup is opened by a passphrase; else by an identity of age.

    Raises:
        UserError: it is no backup, or cannot be read.
    """
    try:
        return asks_for_passphrase(_read(path))
    except AgeError as error:
        raise UserError(Problem(str(path), str(error), "name a file of `mlops site backup`")) from None


def read_backup(path: Path, opener: Opener) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return a backup's members, each as its manifest says, and the rest of the manifest.

    Raises:
        UserError: it cannot be opened so, or is damaged.
    """
    try:
        return unpack(opener(_read(path)))
    except (AgeError, ArchiveError, ValueError) as error:
        remedy = "name what it was closed for; a damaged file cannot be mended: take another backup"
        raise UserError(Problem(str(path), f"cannot be opened: {error}", remedy)) from None


def with_snapshot(members: Mapping[str, bytes], path: Path) -> dict[str, bytes]:
    """Return a backup whose cluster is that of a snapshot: of the share, where there are newer ones than the backup.

    Raises:
        UserError: the backup's site has not made that snapshot, or it is damaged.
    """
    identity = members.get(f"{STATE}/{IDENTITY}", b"").decode()
    try:
        found = read_tar(decrypt_by_identity(_read(path), identity))
    except (AgeError, ArchiveError, ValueError) as error:
        remedy = "name a file etcd-....tar.gz.age of the share's folder `backups`, of the same site as the backup"
        raise UserError(Problem(str(path), f"cannot be read: {error}", remedy)) from None
    others = {name: data for name, data in members.items() if not name.startswith(f"{CLUSTER}/")}
    return others | {f"{CLUSTER}/{name}": data for name, data in found.items()}


def restore_state(members: Mapping[str, bytes], root: Path, home: Path) -> list[Path]:
    """Write those files of the checkout that are missing, and return them. What is there stays as it is.

    Args:
        root: the checkout. home: its state folder.

    Raises:
        UserError: a file is there that must be the same, and is another one; nothing was written then.
    """
    folder = site_folder(home)
    problems = [
        Problem(
            str(folder / name), "is another one than in the backup", "move it away, or use that site's own checkout"
        )
        for name in ESSENTIAL
        if (folder / name).exists()
        and f"{STATE}/{name}" in members
        and (folder / name).read_bytes() != members[f"{STATE}/{name}"]
    ]
    if problems:
        raise UserError(problems)
    written = []
    file = root / SITE_FILE
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(members[SITE_FILE])
        written.append(file)
    for path, data in (*_state_files(members, folder), *_password_files(members, root)):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(path, data.decode())
            written.append(path)
    return written


def _state_files(members: Mapping[str, bytes], folder: Path) -> Iterator[tuple[Path, bytes]]:
    for name, data in members.items():
        if name.startswith(f"{STATE}/"):
            yield folder / name.removeprefix(f"{STATE}/"), data


def _password_files(members: Mapping[str, bytes], root: Path) -> Iterator[tuple[Path, bytes]]:
    # Where the site's file names them, which may be another one than that of the backup.
    for name, reference in password_references(load_site(root / SITE_FILE)):
        path = password_path(reference, root)
        if path is not None and f"{PASSWORDS}/{name}" in members:
            yield path, members[f"{PASSWORDS}/{name}"]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(Problem(str(path), f"cannot be read: {error.strerror}", "name a backup")) from None
