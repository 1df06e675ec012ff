"""``smb://[domain;][user@]host[:port]/share/folder/file``: what a URL names, and a path as a URL again.

The path is percent-decoded once, when it is cut off a URL; a path without ``smb://`` in front is taken as it is. That
keeps ``100%`` a valid name, and every name can be written as a URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from dvc_smb.options import OptionError, Options, check

PREFIX = "smb://"
_NEEDS_ESCAPE = re.compile(r"[%?#\x00-\x20\x7f]")


@dataclass(frozen=True)
class Location:
    """What one URL names.

    Attributes:
        host: name or address, an IPv6 address without brackets.
        path: ``/share/folder/file``, decoded; ``/`` when the URL names no share.
        port, user, domain: what the URL says of them, else None.
    """

    host: str
    path: str
    port: int | None = None
    user: str | None = None
    domain: str | None = None


def parse_url(url: str) -> Location:
    """Take an ``smb://`` URL apart.

    Raises:
        OptionError: it names no host, holds a password, its port is none, or its path leaves the share. The message
            never repeats the part in front of ``@``.
    """
    if not url.lower().startswith(PREFIX):
        raise OptionError("url", f"{url!r} does not start with {PREFIX}")
    authority, _, path = url[len(PREFIX) :].partition("/")
    account, _, server = authority.rpartition("@")
    domain, _, user = account.rpartition(";")
    if ":" in user:
        raise OptionError(
            "url",
            f"the URL of {server} holds a password, which would be committed: write {PREFIX}USER@{server}/... and set "
            "it by `dvc remote modify --local REMOTE password ...`, DVC_SMB_PASSWORD or DVC_SMB_PASSWORD_FILE",
        )
    host, port = _host_and_port(server)
    return Location(
        host=host,
        path=normal(unquote(path)),
        port=None if port is None else check("port", port),
        user=unquote(user) or None,
        domain=unquote(domain) or None,
    )


def _host_and_port(server: str) -> tuple[str, str | None]:
    if server.startswith("["):
        host, closed, rest = server[1:].partition("]")
        if not closed or not (rest == "" or rest.startswith(":")):
            raise OptionError("url", f"{server!r} is no host: an IPv6 address is written as {PREFIX}[::1]:445/share")
        port = rest[1:] or None
    else:
        host, _, rest = server.partition(":")
        port = rest or None
    if not host or re.search(r"[\s\\?#]", host):
        raise OptionError("url", f"the URL names no host: write {PREFIX}USER@HOST/SHARE/FOLDER")
    return host, port


def normal(path: str) -> str:
    """Return ``path`` with one slash in front, none at the end and no empty or ``.`` part.

    Raises:
        OptionError: a part is ``..``: it would leave the folder, and servers refuse it.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise OptionError("url", f"{path!r} holds '..': name the folder from the share down")
    return "/" + "/".join(parts)


def strip(path: str) -> str:
    """Return the path of an ``smb://`` URL, or a path as :func:`normal` has it."""
    return parse_url(path).path if path.lower().startswith(PREFIX) else normal(path)


def url_of(options: Options, path: str) -> str:
    """Return the URL of a path on a server, without an account. :func:`parse_url` gives the same path back."""
    escaped = _NEEDS_ESCAPE.sub(lambda found: f"%{ord(found[0]):02X}", path)
    return f"{PREFIX}{options.server}/{escaped.lstrip('/')}"
