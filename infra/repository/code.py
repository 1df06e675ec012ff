"""Which code a run has: that of a git checkout, or that of a container image, which has no git.

An image holds the tracked files and ``image.json`` at their root, written when it was built: the fields of
:class:`~infra.repository.git.CodeVersion`, with ``lock_sha256`` and ``built`` besides. Where there is a checkout, git
tells; an ``image.json`` that lies in it is not asked.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from configs.problems import Problem, UserError
from infra.repository import git
from infra.repository.git import CodeVersion

IMAGE_FILE = "image.json"


def find_root(start: Path) -> Path:
    """Return the root folder of the checkout, or of the image's code, seen from any folder in it.

    Raises:
        UserError: ``start`` is in neither.
    """
    for folder in (start.absolute(), *start.absolute().parents):
        if not is_checkout(folder) and (folder / IMAGE_FILE).is_file():
            return folder
        if is_checkout(folder):
            break
    return git.find_root(start)


def is_checkout(root: Path) -> bool:
    """Whether git knows this code: ``.git`` is a folder, or in a worktree a file."""
    return (root / ".git").exists()


def code_version(root: Path) -> CodeVersion:
    """Describe the code in ``root``: as it is now in a checkout, as it was built in an image.

    Raises:
        UserError: no checkout, one without a commit, or an ``image.json`` that cannot be used.
    """
    if is_checkout(root) or not (root / IMAGE_FILE).is_file():
        return git.code_version(root)
    path = root / IMAGE_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name: values[field.name] for field in fields(CodeVersion)}
        return CodeVersion(**known | {"unknown": tuple(known["unknown"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be read: {error}"
        raise UserError(Problem(str(path), reason, "build the image again: mlops build-image")) from None


def data_tag(root: Path, data_file: str, digest: str) -> str | None:
    """Return the newest ``data-vN`` tag whose ``data_file`` holds ``digest``; None in an image, which has no tags."""
    return git.data_tag(root, data_file, digest) if is_checkout(root) else None


def need_checkout(root: Path, what: str) -> None:
    """Return if ``root`` is a git checkout.

    Args:
        what: what needs one, as the subject of a sentence (``publishing a dataset``).

    Raises:
        UserError: it is not: ``what`` cannot be done in a pod.
    """
    if not is_checkout(root):
        remedy = "run it where the repository is: prefect deployment run .../local on a machine with `mlops up`"
        raise UserError(Problem(what, "needs a git checkout, and a container image has none", remedy))
