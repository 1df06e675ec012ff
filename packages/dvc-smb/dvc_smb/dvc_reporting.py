"""The filesystem that does DVC's work, with its errors as DVC's user needs them."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fsspec.asyn import sync_wrapper

from dvc_smb.dvc_errors import RemoteError, as_told
from dvc_smb.filesystem import SMB

_CONTENT = ("_get_file", "_cat_file")
_TRANSFERS = ("_get_file", "_put_file")
_REPORTED = (
    *("_info", "_ls", "_find", "_du", "_exists", "_isfile", "_isdir", *_CONTENT),
    *("_put_file", "_pipe_file", "_mkdir", "_makedirs", "_rmdir", "_rm_file", "_rm", "_cp_file", "_mv"),
)
#: Seconds during which the files waiting behind a failed one fail as it did, instead of each trying for itself.
_GIVE_UP_FOR = 5.0


class ReportingSMB(SMB):
    """Raises what :func:`dvc_smb.dvc_errors.as_told` makes of an error."""

    _given_up: tuple[float, RemoteError] | None = None


def _again(told: RemoteError) -> RemoteError:
    """Return the same for another file. What is below it stays so, for programs that tell what can pass."""
    other = RemoteError(str(told))
    other.__context__ = told.__context__
    return other


def _reporting(name: str) -> Callable[..., Awaitable[Any]]:
    coroutine = getattr(SMB, name)

    @functools.wraps(coroutine)
    async def reported(self: ReportingSMB, *args: Any, **kwargs: Any) -> Any:
        if name in _TRANSFERS and self._given_up and time.monotonic() - self._given_up[0] < _GIVE_UP_FOR:
            raise _again(self._given_up[1])
        try:
            return await coroutine(self, *args, **kwargs)
        except OSError as error:
            told = as_told(error, content=name in _CONTENT)
            if isinstance(told, RemoteError) and name in _TRANSFERS:
                self._given_up = time.monotonic(), told
            raise told from None

    return reported


for _name in _REPORTED:
    setattr(ReportingSMB, _name, _reporting(_name))

# SMB binds these two to its own coroutines.
ReportingSMB.mv = sync_wrapper(ReportingSMB._mv)
ReportingSMB.rmdir = sync_wrapper(ReportingSMB._rmdir)
