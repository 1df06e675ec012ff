"""Where an upload lies until it is complete, and how what killed clients left there is cleaned.

Objects and runs of a DVC remote are uploaded into ``<remote>/.dvc-smb-tmp``, outside of every folder that DVC lists:
beside them, ``gc`` would take one for an object. Other files are uploaded beside their target. Either way the final
rename stays within one file system.

A client keeps its temporary open, and forbids others to delete it, as long as it writes. So a server refuses to delete
one that is in use, whoever asks; what it does delete was left by a client or a connection that is gone.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import posixpath
import secrets
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from dvc_smb import names
from dvc_smb.listing import list_folder
from dvc_smb.share import Share
from dvc_smb.smb2 import messages
from dvc_smb.smb2.messages import RELATED_FILE, Entry

#: Seconds after which a temporary of another machine is taken for abandoned, by the server's clock.
ABANDONED = 24 * 3600.0

_numbers = itertools.count()


async def new_name(share: Share, name: str, path: str) -> str:
    """Return the name, within the share, of a new temporary for an upload to ``name``; its folder exists.

    Before the first one in a folder, what is left there of dead clients is removed.

    Raises:
        OSError: the folder cannot be made.
    """
    root = names.remote_root(path)
    folder = posixpath.join(names.locate(root).name, names.TEMPORARY_FOLDER) if root else posixpath.dirname(name)
    await share.once(("temporaries", folder), lambda: _prepare(share, folder, posixpath.dirname(path)))
    return posixpath.join(folder, f"{names.TEMPORARY_PREFIX}{_machine()}-{_process(os.getpid())}-{next(_numbers)}")


async def _prepare(share: Share, folder: str, path: str) -> None:
    await share.ensure_folder(folder, path)
    # A client that may not delete still may upload; what it cannot clean, another one will.
    with suppress(PermissionError):
        left = [
            entry
            for entry in await list_folder(share, folder, path, f"{names.TEMPORARY_PREFIX}*")
            if not entry.is_directory
        ]
        if left:
            now = await _server_time(share, folder)
            for name in abandoned(left, now):
                with suppress(OSError):
                    await share.remove_file(posixpath.join(folder, name), path)


def abandoned(entries: Iterable[Entry], now: float) -> list[str]:
    """Return the names of those temporaries that nobody will finish.

    Args:
        entries: what lies beside them counts as well, and is never among the names.
        now: seconds since 1970 by the server's clock.
    """
    mine, current = (
        f"{names.TEMPORARY_PREFIX}{_machine()}-",
        f"{names.TEMPORARY_PREFIX}{_machine()}-{_process(os.getpid())}-",
    )
    return [
        entry.name
        for entry in entries
        if names.is_temporary(entry.name)
        and not entry.name.startswith(current)
        and (entry.name.startswith(mine) or now - entry.modified > ABANDONED)
    ]


async def _server_time(share: Share, folder: str) -> float:
    """Return the server's time, from a file made for that and gone at once."""
    probe = posixpath.join(folder, f"{names.TEMPORARY_PREFIX}{_machine()}-{_process(os.getpid())}-{next(_numbers)}")
    options = messages.NOT_DIRECTORY | messages.DELETE_ON_CLOSE
    made = messages.create(probe, messages.DELETE | messages.READ_ATTRIBUTES, messages.CREATE_NEW, options)
    replies = await share.call([made, messages.close(RELATED_FILE)], probe)
    return messages.parse_create(replies[0]).created


@cache
def _machine() -> str:
    """Return what is the same for all processes on this machine, or in this container, and says nothing about it."""
    identity = socket.gethostname()
    with suppress(OSError):
        identity += Path("/etc/machine-id").read_text()
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


@cache
def _process(pid: int) -> str:
    """Return what no other process has, a fork of this one included."""
    return hashlib.sha256(f"{pid} {time.time_ns()} {secrets.token_hex(8)}".encode()).hexdigest()[:8]
