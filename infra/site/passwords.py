"""Passwords and keys that the site gives: looked up where they are to be, made where there are none yet."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

from configs.secret import PasswordReference
from infra.age.keys import make_identity
from infra.kubeadm.policy import KEY_BYTES
from infra.password import password_in, password_path, read_password
from infra.stack.credentials import write_private

BYTES = 24
"""Of randomness; 32 characters that need no quotes anywhere."""


def find_or_make_password(reference: PasswordReference, what: str, root: Path, home: Path) -> str:
    """Return a password; one that is to be in a file which is not there is made, and written there (0600).

    Args:
        what: whose it is, for errors. root: the checkout. home: its state folder.

    Raises:
        UserError: it is to be elsewhere, and is not; or others can read its file.
    """
    path = password_path(reference, root)
    if path is not None and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, secrets.token_urlsafe(BYTES) + "\n")
    return read_password(reference, what, root, home)


def find_or_make_key(path: Path, what: str) -> str:
    """Return base 64 of ``KEY_BYTES`` random bytes, the same at every call for the same file (0600).

    Raises:
        UserError: others can read the file.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode() + "\n")
    return password_in(path, what, "bring it back from a backup")


def find_or_make_identity(path: Path, what: str) -> str:
    """Return an identity of age (``AGE-SECRET-KEY-1...``), the same at every call for the same file (0600).

    Raises:
        UserError: the file cannot be read.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, make_identity() + "\n")
    return password_in(path, what, "bring it back from a backup")
