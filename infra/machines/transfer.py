"""A large file between here and a machine: by an ssh session of its own, whole by its digest, or not at all."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

TRANSFER_S = 3600
_UP = """\
set -e
mkdir -p "$(dirname "$1")"
umask 077
draft="$1.mlops-new"
trap 'rm -f "$draft"' EXIT
cat >"$draft"
if ! echo "$2  $draft" | sha256sum --check --status; then
  echo "only $(stat -c %s "$draft") bytes came, or other ones" >&2
  exit 1
fi
sync "$draft"
mv -fT "$draft" "$1"
"""


class TransferError(Exception):
    """A file did not come to its end; the text is what the other side said last."""


def digest_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def send(ssh: Sequence[str], root: Sequence[str], local: Path, path: PurePosixPath, digest: str) -> None:
    """Write a file of ours there, mode 0600.

    Args:
        ssh: the words up to the remote command. root: those that make a command root's.
        digest: of :func:`digest_of`, from before: a file that has changed since is refused.

    Raises:
        TransferError: it was not written.
    """
    remote = shlex.join((*root, "sh", "-c", _UP, "sh", str(path), digest))
    with local.open("rb") as file:
        _run([*ssh, remote], stdin=file)


def receive(ssh: Sequence[str], root: Sequence[str], path: PurePosixPath, local: Path, digest: str) -> None:
    """Write a file from there to ``local``, whose folder is there.

    Args:
        digest: what it must have.

    Raises:
        TransferError: it was not written.
    """
    draft = local.with_name(f".{local.name}.new")
    try:
        with draft.open("wb") as file:
            _run([*ssh, shlex.join((*root, "cat", "--", str(path)))], stdin=subprocess.DEVNULL, stdout=file)
        if digest_of(draft) != digest:
            raise TransferError(f"only {draft.stat().st_size} bytes came, or other ones")
        draft.replace(local)
    finally:
        draft.unlink(missing_ok=True)


def _run(command: list[str], stdin: BinaryIO | int, stdout: BinaryIO | int = subprocess.DEVNULL) -> None:
    try:
        done = subprocess.run(
            command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, timeout=TRANSFER_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise TransferError(f"took more than {TRANSFER_S} s") from None
    if done.returncode:
        raise TransferError(done.stderr.decode("utf-8", "replace"))
