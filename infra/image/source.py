"""What goes into an image: exactly the files of one commit, and a file that says which commit that is."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from configs.problems import Problem, UserError
from infra.image.record import now
from infra.repository.code import IMAGE_FILE
from infra.repository.git import GENERATED, CodeVersion, code_version, git

LOCK = "requirements.lock"
_SHOWN = 20


@dataclass(frozen=True)
class Source:
    """The code of an image.

    Attributes:
        root: the checkout.
        code: the commit, and what the files differ from it; files that git does not track are never part of it.
        left_out: files in the code folders that git does not track.
        lock_sha256: of the lock that goes into the image.
    """

    root: Path
    code: CodeVersion
    left_out: tuple[str, ...]
    lock_sha256: str


def read_source(root: Path, *, dirty: bool) -> Source:
    """Look at the checkout.

    Args:
        dirty: take uncommitted changes of tracked files along instead of refusing them.

    Raises:
        UserError: no checkout; or uncommitted changes, all named, and ``dirty`` is false.
    """
    code = code_version(root)
    if code.dirty and not dirty:
        excluded = [f":(exclude){name}" for name in GENERATED]
        changed = git(root, "diff", "--name-only", "HEAD", "--", ".", *excluded).splitlines()
        files = [*changed, *(f"{name} (not tracked)" for name in code.unknown)]
        more = [f"and {len(files) - _SHOWN} more"] if len(files) > _SHOWN else []
        listed = "\n".join(f"      {name}" for name in files[:_SHOWN] + more)
        remedy = "commit them; or `mlops build-image --dirty` keeps the changes of tracked files as a diff in the image"
        raise UserError(Problem(str(root), f"has changes that are in no commit:\n{listed}", remedy))
    tracked = replace(code, unknown=())
    try:
        data = (root / LOCK).read_bytes()
    except OSError as error:
        raise UserError(Problem(LOCK, f"cannot be read: {error.strerror}", "make lock, then commit it")) from None
    return Source(root, tracked, code.unknown, hashlib.sha256(data).hexdigest())


def export(source: Source, folder: Path) -> None:
    """Write the files of ``source`` into the empty ``folder``, with ``image.json``.

    All files get the commit's time, so that a builder finds unchanged ones in its cache.

    Raises:
        UserError: git cannot do it.
    """
    with TemporaryDirectory(prefix="mlops-index-") as place:
        index = {"GIT_INDEX_FILE": str(Path(place) / "index")}
        git(source.root, "read-tree", source.code.commit, env=index)
        if source.code.diff:
            git(source.root, "apply", "--cached", "--whitespace=nowarn", "-", given=source.code.diff, env=index)
        git(source.root, "checkout-index", "--all", f"--prefix={folder}/", env=index)
    about = asdict(source.code) | {"lock_sha256": source.lock_sha256, "built": now()}
    (folder / IMAGE_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    committed = datetime.fromisoformat(source.code.date).timestamp()
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (committed, committed), follow_symlinks=False)
