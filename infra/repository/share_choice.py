"""The share that a person chose for one checkout by ``--share``: read, kept, and forgotten again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from configs.problems import Problem, UserError
from configs.secret import PasswordReference
from configs.storage import STORAGE, DirectoryStorage, MountStorage, SmbStorage, Storage, parse_smb_url
from infra.repository import dvc_config
from infra.samba.sentinel import find_sentinel
from infra.stack.credentials import write_private


@dataclass(frozen=True)
class Record:
    """What is kept in the state folder, without any secret.

    Attributes:
        chosen: the share chosen for this checkout, None for the site's.
        applied: what was last written to DVC's own configuration: anything else there was set by hand.
    """

    chosen: Storage | None = None
    applied: Mapping[str, str] = field(default_factory=dict)


def read_record(home: Path) -> Record:
    """Read the record; an empty one where nothing was ever kept.

    Raises:
        UserError: the file is there but cannot be used.
    """
    path = home / "share.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        chosen = STORAGE.validate_python(values["chosen"]) if values["chosen"] else None
        return Record(chosen, dict(values["applied"]))
    except FileNotFoundError:
        return Record()
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(Problem(str(path), "cannot be used", "remove it, and choose the share again")) from None


def write_record(home: Path, record: Record) -> None:
    """Keep the record.

    Raises:
        OSError: the state folder cannot be written.
    """
    home.mkdir(parents=True, exist_ok=True)
    chosen = record.chosen.model_dump(mode="json") if record.chosen else None
    text = json.dumps({"chosen": chosen, "applied": dict(record.applied)}, indent=2)
    write_private(home / "share.json", text + "\n")


def parse_choice(text: str, root: Path, home: Path) -> Storage:
    """Read what a person gives as ``--share``: an ``smb://`` address, or an existing folder.

    A folder in a share that is marked by its sentinel will be used only while that is there.

    Raises:
        UserError: it is neither.
    """
    if "://" in text:
        return _address(text, home)
    folder = dvc_config.absolute(root, text)
    if not folder.is_dir() and not folder.is_relative_to(root):
        remedy = f"mkdir -p {folder}, or write smb://user@host/share/folder"
        raise UserError(Problem(f"--share {text}", "is no folder", remedy))
    marked = find_sentinel(folder)
    if marked is None:
        return DirectoryStorage(path=folder)
    mount, share = marked
    below = PurePosixPath(folder.relative_to(mount))
    return MountStorage(path=mount, folder=below, source=_mounted_source(mount), sentinel=share)


def kept_password(storage: SmbStorage, home: Path) -> str | None:
    """Return the password that was kept for this very account on this very server, if there is one."""
    earlier = read_record(home).chosen
    if not isinstance(earlier, SmbStorage) or not password_file(home).exists():
        return None
    same = (earlier.place.server, earlier.account) == (storage.place.server, storage.account)
    return password_file(home).read_text(encoding="utf-8").rstrip("\r\n") if same else None


def remember(root: Path, home: Path, storage: Storage | None, password: str | None = None) -> None:
    """Keep a choice for this checkout, and its password where only the user can read it; None forgets the choice.

    Raises:
        UserError: the state folder cannot be written.
    """
    path = password_file(home)
    # Whatever is in DVC's configuration now, by hand or not, gives way to the choice.
    applied = dvc_config.remote(root, "share", dvc_config.LOCAL)
    try:
        home.mkdir(parents=True, exist_ok=True)
        if password is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.parent.chmod(0o700)
            write_private(path, password)
        write_record(home, Record(storage, {key: applied[key] for key in ("url",) if key in applied}))
    except OSError as error:
        remedy = "make it writable, or name another folder by MLOPS_HOME"
        raise UserError(Problem(str(home), f"cannot be written: {error.strerror}", remedy)) from None


@contextmanager
def on_trial(home: Path) -> Iterator[None]:
    """Undo what :func:`remember` keeps inside the block if the block fails."""
    kept = {path: path.read_text(encoding="utf-8") if path.exists() else None for path in _files(home)}
    try:
        yield
    except BaseException:
        for path, text in kept.items():
            if text is None:
                path.unlink(missing_ok=True)
            else:
                write_private(path, text)
        raise


def _files(home: Path) -> tuple[Path, Path]:
    return home / "share.json", password_file(home)


def password_file(home: Path) -> Path:
    """Where the password of a chosen share is kept."""
    return home / "secrets" / "share-password"


def _address(text: str, home: Path) -> SmbStorage:
    try:
        parse_smb_url(text)
    except ValueError as error:
        shown = "" if "@" in text else f" {text}"  # what stands before the @ may be a secret
        raise UserError(Problem(f"--share{shown}", "is no address of a share", str(error))) from None
    try:
        return SmbStorage(url=text, password=PasswordReference(file=password_file(home)))
    except ValidationError as error:
        told = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(Problem(f"--share {text}", "is not complete", told)) from None


def _mounted_source(mount: Path) -> str | None:
    """Return ``//host/share`` if the kernel has mounted that at ``mount``."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    mounts = [line.split()[:2] for line in lines]
    sources = [source for source, where in mounts if where.replace("\\040", " ") == str(mount)]
    return sources[-1] if sources and sources[-1].startswith("//") and "\\040" not in sources[-1] else None
