"""Paths: ``/share/folder/file`` as callers write them, the name within the share as the server gets it, and back.

Names go to the server as they are: no Unicode normalisation, no mapping of characters. What SMB cannot carry is refused
before anything is sent ([MS-FSCC] 2.1.5), since a server would cut, mangle or misread it: ``a:b`` is a stream of ``a``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from dvc_smb.errors import InvalidName

#: Longest name of one file or folder, in bytes of UTF-8: what Linux takes, on the server's disk and in a mount.
LONGEST_COMPONENT = 255
#: Longest path within a share, in UTF-16 code units ([MS-FSCC] 2.1.5).
LONGEST_PATH = 32760

#: Where uploads to a DVC remote lie until they are complete, and how each temporary's name starts.
TEMPORARY_FOLDER = ".dvc-smb-tmp"
TEMPORARY_PREFIX = ".dvc-smb-"

_TEMPORARY = re.compile(r"\.dvc-smb-(tmp|[0-9a-f]{12}-[0-9a-f]{8}-[0-9]+)")
_FORBIDDEN = re.compile(r'[\x00-\x1f:*?"<>|\\\ud800-\udfff]|[. ](?=/|\Z)')
_OBJECT = re.compile(r"^(?P<root>.*)/files/md5/(?P<prefix>[0-9a-f]{2})/(?P<rest>[0-9a-f]{30})(?:\.dir)?$")
_RUN = re.compile(r"^(?P<root>.*)/runs/[0-9a-f]{2}/[0-9a-f]{64}/[^/]+$")
_OLD_OBJECT = re.compile(r"^(?P<root>.*)/[0-9a-f]{2}/[0-9a-f]{30}(?:\.dir)?$")


class Location(NamedTuple):
    """Where a path lies: the share, and the name within it, with ``/`` and without one at either end."""

    share: str
    name: str


@lru_cache(maxsize=4096)
def check_folder(path: str) -> str:
    """Return the path of a folder when SMB can carry it; remembered, since many files share a folder.

    Raises:
        InvalidName: it has a character, a component or a length that SMB has not.
    """
    if len(path) > LONGEST_PATH:
        raise InvalidName(f"{path[:60]!r}... has {len(path)} characters, SMB takes {LONGEST_PATH}: shorten it")
    found = _FORBIDDEN.search(path)
    if found:
        raise _forbidden(path, found)
    for component in path.split("/"):
        _check_length(path, component)
    return path


def locate(path: str) -> Location:
    """Split ``/share/folder/file``.

    Raises:
        InvalidName: SMB cannot carry it, it climbs by ``..``, or it names no share.
    """
    folder, _, name = path.rpartition("/")
    if _FORBIDDEN.search(name):
        check_folder(path)
    if len(name) > LONGEST_COMPONENT // 4:
        _check_length(path, name)
    check_folder(folder)
    share, _, rest = path.lstrip("/").partition("/")
    if not share:
        raise InvalidName(f"{path!r} names no share: a path is /share/folder/file")
    return Location(share, rest.strip("/"))


def md5_in_name(path: str) -> str | None:
    """Return the md5 that the content must have when the path is that of an object in a DVC remote, else None.

    Only the layout of DVC 3 (``files/md5/xx/...``) is sure: DVC 2 named text files by the md5 of other line ends.
    """
    found = _OBJECT.match(path)
    return found["prefix"] + found["rest"] if found else None


def remote_root(path: str) -> str | None:
    """Return the folder of the DVC remote in which the path is an object or a run of the run cache, else None."""
    found = _OBJECT.match(path) or _RUN.match(path) or _OLD_OBJECT.match(path)
    return found["root"] if found and found["root"].strip("/") else None


def is_temporary(name: str) -> bool:
    """Return whether a name in a folder is that of a temporary, or of the folder for them."""
    return name.startswith(TEMPORARY_PREFIX) and _TEMPORARY.fullmatch(name) is not None


def _check_length(path: str, component: str) -> None:
    length = len(component.encode("utf-8", "surrogatepass"))
    if length > LONGEST_COMPONENT:
        raise InvalidName(f"{path!r} has a name of {length} bytes, servers take {LONGEST_COMPONENT}: shorten it")


def _forbidden(path: str, found: re.Match[str]) -> InvalidName:
    character = found[0]
    component = path[path.rfind("/", 0, found.start()) + 1 :].partition("/")[0]
    if component in (".", ".."):
        return InvalidName(f"{path!r} has the component {component!r}: write the path without it")
    if character in ". ":
        kind = "dot" if character == "." else "space"
        return InvalidName(f"{path!r} has a name that ends with a {kind}, which SMB cannot carry: rename it")
    if "\ud800" <= character <= "\udfff":
        return InvalidName(f"{path!r} holds bytes that are no UTF-8, which SMB cannot carry: rename it")
    return InvalidName(f"{path!r} holds the character {character!r}, which SMB cannot carry: rename it")
