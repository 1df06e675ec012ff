"""What can go wrong between a client and a server, as one sentence each; none holds a secret.

A failed operation on a file is a plain ``FileNotFoundError``, ``PermissionError`` ... made by :mod:`.status`.
"""

# ruff: noqa: N818 - what went wrong is the name; "Error" would only be repeated
from __future__ import annotations

import errno
from typing import ClassVar, Self


class SMBError(OSError):
    """Something that concerns the server, the login or the share rather than one file.

    ``str()`` is the sentence alone, ready to be shown to a person.
    """

    code: ClassVar[int] = errno.EIO

    def __init__(self, sentence: str) -> None:
        super().__init__(self.code, sentence)

    def __str__(self) -> str:
        return str(self.strerror)

    def again(self) -> Self:
        """Return a copy to raise once more, whose traceback is its own."""
        return type(self)(str(self))

    def __reduce__(self) -> tuple[type[SMBError], tuple[str]]:
        return type(self), (str(self.strerror),)


class LoginError(SMBError, PermissionError):
    """The server refused the account, its password, or the kind of session that the options ask for."""

    code = errno.EACCES


class ShareNotFound(SMBError):
    """The server has no share of that name. Not a FileNotFoundError, which a caller may take for an empty remote."""

    code = errno.ENODEV


class HostNotFound(SMBError):
    """The host's name has no address."""

    code = errno.ENXIO


class ProtocolError(SMBError):
    """The peer sent what [MS-SMB2] forbids, or what fails its signature: nothing more is read from it."""

    code = errno.EBADMSG


class Unreachable(SMBError, ConnectionError):
    """Nothing listens there, or no route leads there."""

    code = errno.ECONNREFUSED


class Disconnected(SMBError, ConnectionResetError):
    """The connection or its session ended. What was under way may or may not have happened."""

    code = errno.ECONNRESET


class NoAnswer(SMBError, TimeoutError):
    """The server stayed silent for longer than the options allow."""

    code = errno.ETIMEDOUT


class Busy(SMBError, ConnectionError):
    """The server has no resources for this now; the same may pass later."""

    code = errno.EAGAIN
