"""A failure as DVC's user sees it: one line for what concerns the whole remote, one for each file that is wrong.

DVC counts failed files and prints a line for each of them, which for a wrong password would be every file of a dataset.
An error of the server, the login, the share or the right to write is therefore a :class:`RemoteError`, which stops the
command. What DVC itself expects and handles, a file that is missing say, stays the ``OSError`` that it is.
"""

from __future__ import annotations

import errno
import logging

from dvc.exceptions import DvcException

from dvc_smb.smb2.errors import SMBError

#: Where DVC logs a failed file and then goes on with the next.
_LOGGERS = ("dvc_data.hashfile.transfer", "dvc_data.index.fetch")
_HANDLED_BY_DVC = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_NO_RIGHT = frozenset({errno.EACCES, errno.EPERM})


class RemoteError(DvcException):  # type: ignore[misc]
    """Nothing more can be done on this remote. ``str()`` is one sentence: what, and what to do."""


class OneFileError(DvcException):  # type: ignore[misc]
    """One file cannot be read or written. ``str()`` is one sentence that names it."""


def as_told(error: OSError, *, content: bool) -> Exception:
    """Return what DVC's user should be told of ``error``; ``error`` itself where DVC has words of its own for it.

    Args:
        error: what went wrong.
        content: whether it did while the content of one file was read, whose rights need not be those of others.
    """
    if isinstance(error, _HANDLED_BY_DVC) or error.errno == errno.EMFILE:
        return error
    concerns_all = error.errno in _NO_SPACE or (error.errno in _NO_RIGHT and not content)
    return (RemoteError if concerns_all or isinstance(error, SMBError) else OneFileError)(sentence(error))


def sentence(error: OSError) -> str:
    """Return what happened without the number of the error; the path, where the error has one, comes first."""
    text = error.strerror or str(error)
    named = error.filename
    return f"{named}: {text}" if isinstance(named, str) and named not in text else text


class _RaiseRemoteErrors(logging.Filter):
    """Raises the error that a record reports, when it ends the command anyway."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, RemoteError):
            raise error
        return True


def stop_at_remote_errors() -> None:
    """Make DVC stop at the first :class:`RemoteError`. Calling it again changes nothing."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(entry, _RaiseRemoteErrors) for entry in logger.filters):
            logger.addFilter(_RaiseRemoteErrors())
