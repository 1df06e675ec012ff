# ruff: noqa: N818 - what went wrong is the name; "Error" would only be repeated
"""What can be wrong with one file, as one sentence each. What concerns the whole share is in ``smb2.errors``."""

from __future__ import annotations

import errno
from typing import ClassVar


class FileError(OSError):
    """``str()`` is the sentence alone, ready to be shown to a person."""

    code: ClassVar[int] = errno.EIO

    def __init__(self, sentence: str) -> None:
        super().__init__(self.code, sentence)

    def __str__(self) -> str:
        return str(self.strerror)

    def __reduce__(self) -> tuple[type[FileError], tuple[str]]:
        return type(self), (str(self.strerror),)


class InvalidName(FileError):
    """No file on a share can have this path."""

    code = errno.EINVAL


class AlteredObject(FileError):
    """An object's content is not what its name says; what was read of it has been thrown away."""


class ChangedFile(FileError):
    """The file in the share changed, or lost its end, while it was read."""


class Incomplete(FileError):
    """The server does not have all that was sent, or the local file changed meanwhile; nothing got its name."""


class EndlessFolder(FileError):
    """A folder lies in itself, by a symbolic link on the server."""

    code = errno.ELOOP
