"""The filesystem that does DVC's work, with its errors as DVC's user needs them."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

from dvc_smb.dvc_errors import RemoteError, concerns_remote, sentence
from dvc_smb.filesystem import SMB

_READING = ("_info", "_ls", "_find", "_exists", "_isfile", "_isdir", "_size", "_cat_file", "_get_file")
_WRITING = ("_put_file", "_pipe_file", "_mkdir", "_makedirs", "_rm_file", "_rm", "_rmdir", "_cp_file", "_mv")
_TRANSFERS = frozenset({"_get_file", "_put_file"})
#: Seconds during which the files waiting behind a failed one fail as it did, instead of each trying for itself.
_GIVE_UP_FOR = 5.0


class ReportingSMB(SMB):
    """Raises :class:`RemoteError` for what concerns the remote as a whole; other errors pass as they are."""

    _given_up: tuple[float, OSError] | None = None


def _remote_error(error: OSError) -> RemoteError:
    """Return what DVC's user is told. ``error`` stays below it, for programs that tell what can pass."""
    told = RemoteError(sentence(error))
    told.__context__ = error
    return told


def _reporting(name: str) -> Callable[..., Awaitable[Any]]:
    coroutine = getattr(SMB, name)

    @functools.wraps(coroutine)
    async def reported(self: ReportingSMB, *args: Any, **kwargs: Any) -> Any:
        if name in _TRANSFERS and self._given_up and time.monotonic() - self._given_up[0] < _GIVE_UP_FOR:
            raise _remote_error(self._given_up[1])
        try:
            return await coroutine(self, *args, **kwargs)
        except OSError as error:
            if not concerns_remote(error, writing=name in _WRITING):
                raise
            if name in _TRANSFERS:
                self._given_up = time.monotonic(), error
            raise _remote_error(error) from None

    return reported


for _name in (*_READING, *_WRITING):
    if hasattr(SMB, _name):
        setattr(ReportingSMB, _name, _reporting(_name))
