"""Who logs in, with what: the remote's options, then the environment, then a question on the terminal."""

from __future__ import annotations

import getpass
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dvc_smb.options import OptionError, Options

USER = "DVC_SMB_USER"
PASSWORD = "DVC_SMB_PASSWORD"  # noqa: S105 the variable's name
PASSWORD_FILE = "DVC_SMB_PASSWORD_FILE"  # noqa: S105 the variable's name
REMEDY = (
    f"set {PASSWORD} or {PASSWORD_FILE}, or `dvc remote modify --local REMOTE password ...`, "
    "or `dvc remote modify REMOTE ask_password true`"
)

_asked: dict[tuple[str, str], str] = {}
_asking = threading.Lock()


def complete(options: Options, *, ask: bool = False, environment: Mapping[str, str] = os.environ) -> Options:
    """Return ``options`` with the account and password to log in with.

    A password among the options is used with the user among them. Without one the environment's account applies: a pod
    or a teammate logs in as themselves while the committed URL names somebody else.

    Raises:
        OptionError: nothing says who logs in, or the password file cannot be read, or there is nobody to ask.
    """
    if options.guest:
        return options
    if options.password is None:
        account = environment.get(USER)
        if account:
            options = replace(options, user=account, domain=None if "\\" in account else options.domain)
        options = replace(options, password=_from_environment(environment))
    elif options.user is None and environment.get(USER):
        options = replace(options, user=environment[USER])
    if options.password is None and ask:
        options = replace(options, password=_ask(options))
    if options.auth == "ntlm":
        _require_account(options)
    return options


def _require_account(options: Options) -> None:
    if not options.user:
        raise OptionError(
            "user",
            f"no user for {options.server}: write smb://USER@{options.server}/... or set {USER}; "
            "for a share without accounts set guest true",
        )
    if options.password is None:
        raise OptionError("password", f"no password for {options.user} at {options.server}: {REMEDY}")


def _from_environment(environment: Mapping[str, str]) -> str | None:
    if environment.get(PASSWORD):
        return environment[PASSWORD]
    file = environment.get(PASSWORD_FILE)
    if not file:
        return None
    try:
        # A mounted secret or an editor may end the file with a newline, which no password has.
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise OptionError(
            "password", f"the file that {PASSWORD_FILE} names, {file}, cannot be read: {reason}"
        ) from None


def _ask(options: Options) -> str:
    """Ask once in a process for each account and server, however many threads need the answer."""
    if not options.user:
        raise OptionError("user", f"ask_password needs a user: write smb://USER@{options.server}/... or set {USER}")
    with _asking:
        key = (options.server, f"{options.domain or ''}\\{options.user}")
        if key not in _asked:
            if not (sys.stdin and sys.stdin.isatty()):
                raise OptionError(
                    "ask_password",
                    f"ask_password needs a terminal to ask for the password of {options.user} at {options.server}: "
                    f"set {PASSWORD} or {PASSWORD_FILE}",
                )
            _asked[key] = getpass.getpass(f"Password of {options.user} at {options.server}: ")
        return _asked[key]
