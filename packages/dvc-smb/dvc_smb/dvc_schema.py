"""What ``dvc remote modify`` accepts for an ``smb://`` remote.

DVC checks a remote's section of the configuration with voluptuous. A sentence raised here is printed as
``config file error: SENTENCE @ data['remote']['NAME']['OPTION']``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from voluptuous import ALLOW_EXTRA, Invalid, Schema

from dvc_smb.location import parse_url
from dvc_smb.options import OptionError, check, unknown

NAMES = (
    "user",
    "password",
    "ask_password",
    "domain",
    "port",
    "timeout",
    "encrypt",
    "sign",
    "auth",
    "connections",
    "jobs",
    "verify",
    "guest",
)


def _url(value: object) -> str:
    if parse_url(str(value)).path == "/":
        raise OptionError("url", "the URL names no share: write smb://USER@HOST/SHARE/FOLDER")
    return str(value)


def _not_supported(option: str, value: object) -> bool:
    if check("verify", value):
        raise OptionError(option, f"{option} is not possible on smb://: a share keeps no versions of a file; remove it")
    return False


#: The options of ``smb://`` alone, each with what checks it: the shape that treeverse/dvc#10994 asks for.
REMOTE_CONFIG: dict[str, Callable[[object], Any]] = {name: partial(check, name) for name in NAMES}


def schema(common: Mapping[Any, Any]) -> Callable[[Mapping[str, object]], dict[str, object]]:
    """Return the check of a remote's section, with DVC's ``common`` options in it.

    The check returns the section with its values as their types, and raises ``voluptuous.Invalid`` with the option as
    its path.
    """
    ours: dict[str, Callable[[object], Any]] = {
        **REMOTE_CONFIG,
        "url": _url,
        "version_aware": partial(_not_supported, "version_aware"),
        "worktree": partial(_not_supported, "worktree"),
    }
    theirs = {key: value for key, value in common.items() if str(key) not in ours}
    known = {**ours, **{str(key): value for key, value in theirs.items()}}
    check_theirs = Schema(theirs, extra=ALLOW_EXTRA)

    def validate(section: Mapping[str, object]) -> dict[str, object]:
        for option in section:
            if option not in known:
                raise Invalid(unknown(option, known), path=[option])
        checked = dict(check_theirs(dict(section)))
        for option in checked.keys() & ours.keys():
            try:
                checked[option] = ours[option](checked[option])
            except OptionError as error:
                raise Invalid(str(error), path=[option]) from None
        return checked

    return validate
