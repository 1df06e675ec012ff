"""Frames cut out of a stream of bytes: four bytes of length before each ([MS-SMB2] 2.1)."""

from __future__ import annotations

from collections.abc import Callable

from dvc_smb.smb2.errors import ProtocolError

#: A compound's answers may come together; nothing longer is read, let alone room made for it.
LARGEST_FRAME = (16 << 20) + (1 << 16)

_SIZE = 1 << 16


class Inbox:
    """Where a socket writes what arrives.

    Small frames are copied out of one buffer, many at a time; a large one gets room of its own and is not copied.

    Args:
        take: called with each frame, which nobody else will change.
        peer: for messages.
    """

    def __init__(self, take: Callable[[memoryview], None], peer: str) -> None:
        self._take = take
        self._peer = peer
        self._buffer = memoryview(bytearray(_SIZE))
        self._large: memoryview | None = None
        self._filled = 0

    def room(self) -> memoryview:
        """Return where the next bytes are to be written; never empty."""
        return self._buffer[self._filled :] if self._large is None else self._large[self._filled :]

    def written(self, count: int) -> None:
        """Take the frames that ``count`` more bytes complete.

        Raises:
            ProtocolError: a frame is too large, or ``take`` refuses it.
        """
        self._filled += count
        if self._large is None:
            self._cut()
        elif self._filled == len(self._large):
            frame, self._large, self._filled = self._large, None, 0
            self._take(frame)

    def _cut(self) -> None:
        buffer, at, end = self._buffer, 0, self._filled
        while end - at >= 4:
            size = int.from_bytes(buffer[at : at + 4], "big")
            if size > LARGEST_FRAME:
                raise ProtocolError(f"{self._peer} announces an answer of {size} bytes, more than anything asked for")
            start, after = at + 4, at + 4 + size
            if after <= end:
                self._take(memoryview(bytearray(buffer[start:after])))
                at = after
            elif size + 4 > _SIZE:
                self._large = memoryview(bytearray(size))
                self._filled = end - start
                self._large[: self._filled] = buffer[start:end]
                return
            else:
                break
        if at:
            buffer[: end - at] = buffer[at:end]
            self._filled = end - at
