"""Content against the name it is stored under: in a DVC remote the path of an object is the md5 of its content."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from dvc_smb.errors import AlteredObject

if TYPE_CHECKING:
    from hashlib import _Hash


def new_md5() -> _Hash:
    """Return an empty md5, also on machines that forbid md5 for security (it guards against accidents here)."""
    return hashlib.md5(usedforsecurity=False)


def check_pulled(md5: _Hash, expected: str, path: str, size: int) -> None:
    """Compare what was read from the share with the object's name.

    Raises:
        AlteredObject: they differ.
    """
    if md5.hexdigest() != expected:
        raise AlteredObject(
            f"the share holds a truncated or altered object: {path} has {size} bytes with the md5 {md5.hexdigest()}; "
            "delete it there, then run 'dvc push' where its data is in the cache"
        )


def check_pushed(md5: _Hash, expected: str, local: str, path: str) -> None:
    """Compare what was read from the local cache with the name it is about to get in the share.

    Raises:
        AlteredObject: they differ; the share keeps what it had.
    """
    if md5.hexdigest() != expected:
        raise AlteredObject(
            f"the local cache holds an altered object, which was not pushed: {local} has the md5 {md5.hexdigest()} "
            f"instead of {expected}; delete it, then run 'dvc commit' or 'dvc fetch' ({path})"
        )
