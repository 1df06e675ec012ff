"""The file that tells a mounted share from an empty mount point.

It lies in the root of the share, so it is there only while the share is mounted: a task that does not find it stops,
instead of filling the node's own disk with data that nobody else sees.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from configs.problems import Problem, UserError

SENTINEL = ".mlops-share"
FORMAT = 1


def sentinel_text(share: str) -> str:
    """Return the content of the sentinel of the share with the id ``share``."""
    return json.dumps({"share": share, "format": FORMAT}) + "\n"


def write_sentinel(root: Path, share: str) -> Path:
    """Mark ``root`` as the root of the share ``share``; whole or not at all.

    Raises:
        UserError: the id is none, another share is marked there, or the folder cannot be written.
    """
    if not re.fullmatch(r"[\w.-]{1,64}", share):
        raise UserError(Problem(f"share {share!r}", "is no id", "letters, digits, -, _ and ., at most 64"))
    path = root / SENTINEL
    found = read_sentinel(root)
    if found == share:
        return path
    if found is not None:
        raise UserError(Problem(str(path), f"marks another share, {found}", "name that one, or take another folder"))
    draft = path.with_name(f"{SENTINEL}.{os.getpid()}")
    try:
        draft.write_text(sentinel_text(share), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        remedy = "give an existing folder that you may write to"
        raise UserError(Problem(str(path), f"cannot be written: {error.strerror}", remedy)) from None
    return path


def read_sentinel(root: Path) -> str | None:
    """Return the id of the share whose root ``root`` is, None where there is no sentinel.

    Raises:
        UserError: there is a file of that name, but it is no sentinel that this version understands.
        OSError: it cannot be read: the server is away, or this user may not.
    """
    path = root / SENTINEL
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        values = json.loads(text)
        share, version = str(values["share"]), values["format"]
    except (ValueError, KeyError, TypeError):
        raise UserError(
            Problem(str(path), "is no sentinel", f"write it again: {sentinel_text('ID').strip()}")
        ) from None
    if version != FORMAT:
        raise UserError(Problem(str(path), f"has format {version}, this version knows {FORMAT}", "update the project"))
    return share


def find_sentinel(folder: Path) -> tuple[Path, str] | None:
    """Return root and id of the share that ``folder`` lies in, None if it lies in none."""
    for root in (folder, *folder.parents):
        share = read_sentinel(root)
        if share is not None:
            return root, share
    return None


def check_mounted(root: Path, share: str, source: str | None = None) -> None:
    """Return if the share ``share`` is mounted at ``root``; ``source`` (``//host/share``) is what to say if not.

    Raises:
        UserError: it is not, with what is there instead.
        OSError: the mount is there but does not answer: may pass.
    """
    found = read_sentinel(root)
    if found == share:
        return
    what = source or f"the share {share}"
    if found is not None:
        raise UserError(Problem(str(root), f"is the share {found}, not {share}", f"mount {what} there"))
    if not root.is_dir():
        raise UserError(Problem(str(root), "is no folder", f"make it and mount {what} there"))
    if os.path.ismount(root):
        raise UserError(
            Problem(
                str(root),
                f"is mounted, but holds no {SENTINEL}: this is not {what}",
                f"mount {what} there, or mark a new share's root: {sentinel_text(share).strip()}",
            )
        )
    raise UserError(Problem(str(root), f"is an empty mount point: {what} is not mounted", f"mount {what} there"))
