"""Passwords that the site gives: looked up where the site's file says, made where there is none yet."""

from __future__ import annotations

import secrets
from pathlib import Path

from configs.secret import PasswordReference
from infra.password import password_path, read_password
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
