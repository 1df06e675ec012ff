"""Looks a password up where a reference says it is; what is wrong is said without it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from configs.problems import Problem, UserError
from configs.secret import PasswordReference
from infra.repository.dvc_config import absolute
from infra.stack import rest


def password_path(reference: PasswordReference, root: Path) -> Path | None:
    """Return the password's file, if that is where it is; relative paths are seen from the checkout ``root``."""
    return None if reference.file is None else absolute(root, reference.file)


def read_password(reference: PasswordReference, what: str, root: Path, home: Path, *, otherwise: str = "") -> str:
    """Return the password itself.

    Args:
        what: whose it is, as ``password of alice at storage``. root: the checkout. home: its state folder.
        otherwise: what else helps where a file cannot be read, as the end of a sentence.

    Raises:
        UserError: it is not there, is empty, or its file is readable by others.
    """
    if reference.environment is not None:
        value = os.environ.get(reference.environment)
        if not value:
            remedy = f"set it before `mlops up`, so that the worker has it: export {reference.environment}=..."
            raise UserError(Problem(what, f"the variable {reference.environment} is not set", remedy))
        return value
    path = password_path(reference, root)
    if path is not None:
        return _private(path, what, otherwise)
    name = str(reference.prefect_secret)
    try:
        return rest.prefect_secret(home, name)
    except rest.UnreachableError as error:
        remedy = f"start Prefect (mlops up), and make a Secret block named {name} in its UI, under Blocks"
        raise UserError(Problem(what, str(error), remedy)) from None


def password_in(path: Path, what: str, remedy: str) -> str:
    """Return the text of a password's file, without the line's end.

    Args:
        what: whose password it is, or what names the file.
        remedy: what to do where it cannot be read.

    Raises:
        UserError: it cannot be read, or is empty.
    """
    try:
        password = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        raise UserError(Problem(what, f"{path} cannot be read: {reason}", remedy)) from None
    if not password:
        raise UserError(Problem(what, f"{path} is empty", "write the password alone into it"))
    return password


def _private(path: Path, what: str, otherwise: str) -> str:
    password = password_in(path, what, f"write it there (chmod 600 {path}){otherwise}")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UserError(Problem(what, f"others can read {path}", f"chmod 600 {path}, and change the password"))
    return password
