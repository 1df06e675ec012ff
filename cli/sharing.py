"""``--share`` of several subcommands: choose the share of this checkout, keep its password, and say which it is."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from rich.console import Console

from cli.options import SITE
from configs.problems import Problem, UserError
from configs.site import SITE_FILE
from configs.storage import SmbStorage
from infra.password import password_in
from infra.repository.dvc import Dvc
from infra.repository.share import Origin, open_share
from infra.repository.share_check import check
from infra.repository.share_choice import kept_password, on_trial, parse_choice, remember

_PASSWORDS = ("MLOPS_SHARE_PASSWORD", "DVC_SMB_PASSWORD")
_PASSWORD_FILES = ("MLOPS_SHARE_PASSWORD_FILE", "DVC_SMB_PASSWORD_FILE")


def use_share(choice: str | None, root: Path, home: Path, console: Console) -> None:
    """Make ``choice`` the checkout's share, if there is one and it works, and say which share is used.

    Plain ``dvc`` commands use it from now on, too.

    Raises:
        UserError: it cannot be used: no such folder, no address, no login, no right to write, or mistakes in the site
            file. The checkout's share is then what it was.
    """
    if choice == SITE:
        remember(root, home, None)
    elif choice is not None:
        storage = parse_choice(choice, root, home)
        password = _password(storage, home) if isinstance(storage, SmbStorage) else None
        with on_trial(home):
            remember(root, home, storage, password)
            found = check(root, home)[0]
            if found.level == "broken":
                raise UserError(
                    Problem("--share", f"cannot be used, nothing was changed: {found.detail}", found.remedy)
                )
    share = open_share(root, home, credentials=choice is not None)
    if choice is not None:
        with Dvc(root) as dvc:  # for plain dvc commands, before any run
            share.configure(dvc)
    account = f" as {share.storage.account}" if isinstance(share.storage, SmbStorage) else ""
    if share.origin is Origin.CHOSEN:
        why = f", kept for this checkout (`--share {SITE}` goes back to {SITE_FILE})"
    else:
        why = f", from {SITE_FILE}" if share.origin is Origin.SITE else f", {share.origin.value}"
    console.print(f"Share: {share.address or 'none'}{account}{why}", soft_wrap=True, markup=False, highlight=False)


def _password(storage: SmbStorage, home: Path) -> str:
    """Return the password for a share: from the environment, a file, what was kept, or asked for on a terminal."""
    what = f"password of {storage.account} at {storage.place.server}"
    # Ours alone, and kept from now on: the stack and the trainings that it starts need not have it.
    ours = os.environ.pop(_PASSWORDS[0], None)
    for given in (ours, os.environ.get(_PASSWORDS[1])):
        if given:
            return given
    for name in _PASSWORD_FILES:
        if os.environ.get(name):
            return password_in(Path(os.environ[name]), name, "name a readable file")
    kept = kept_password(storage, home)
    if kept is not None:
        return kept
    if not sys.stdin.isatty():
        remedy = f"set {_PASSWORDS[0]} or {_PASSWORD_FILES[0]}, or run this on a terminal, which asks once"
        raise UserError(Problem(what, "is not known", remedy))
    asked = getpass.getpass(f"P{what[1:]}: ")
    if not asked:
        raise UserError(Problem(what, "was not given", "try again"))
    return asked
