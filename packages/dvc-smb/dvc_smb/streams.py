"""A file of the share read in a window of requests, over several connections when it is large."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import NamedTuple, Protocol

from dvc_smb.errors import ChangedFile
from dvc_smb.share import Share, close, in_background, open_with
from dvc_smb.smb2 import messages, status
from dvc_smb.smb2.connection import Connection, Reply
from dvc_smb.smb2.errors import ProtocolError
from dvc_smb.smb2.messages import Opened

#: Bytes of one read or write of a larger file. A prototype was half as fast with 4 MB.
CHUNK = 1 << 20
#: Reads or writes under way for each large file, over all its connections.
WINDOW = 16
#: From this size on a file is read and written over all connections.
STRIPED = 16 << 20

#: How files are opened for reading.
OPTIONS = messages.NOT_DIRECTORY | messages.SEQUENTIAL


class Sink(Protocol):
    """Takes the content of a file in order."""

    async def write(self, data: memoryview) -> None: ...


class Handle(NamedTuple):
    """One opening of a file, on one connection."""

    connection: Connection
    opened: Opened


class Stream:
    """A file opened for reading on as many connections as its size deserves; an async context.

    Attributes:
        size: bytes at the time of opening.
    """

    def __init__(self, share: Share, name: str, path: str) -> None:
        self._share = share
        self._request = messages.create(name, messages.READ_DATA, messages.OPEN, OPTIONS)
        self._path = path
        self._handles: list[Handle] = []
        self.size = 0

    async def __aenter__(self) -> Stream:
        connection = await self._share.pool.pick()
        try:
            await self._open(connection)
            self.size = self._handles[0].opened.size
            if self.size >= STRIPED:
                others = [other for other in await self._share.pool.all() if other is not connection]
                await asyncio.gather(*(self._open(other) for other in others))
            if any(handle.opened.size != self.size for handle in self._handles):
                raise changed(self._path)
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    async def _open(self, connection: Connection) -> None:
        opened, _ = await open_with(connection, [self._request], self._path)
        self._handles.append(Handle(connection, opened))

    def _close(self) -> None:
        for handle in self._handles:
            in_background(close(handle.connection, handle.opened.file_id))

    async def copy(self, sink: Sink, start: int, stop: int) -> None:
        """Read from ``start`` up to ``stop``, which is at most ``size``, into ``sink``.

        Raises:
            ChangedFile: the file has become shorter.
        """
        handles = itertools.cycle(self._handles)
        pending: deque[tuple[Handle, int, int, asyncio.Future[Reply]]] = deque()
        position = start
        try:
            while pending or position < stop:
                while position < stop and len(pending) < WINDOW:
                    handle = next(handles)
                    length = min(CHUNK, handle.connection.max_read, stop - position)
                    (future,) = await handle.connection.send([messages.read(handle.opened.file_id, position, length)])
                    pending.append((handle, position, length, future))
                    position += length
                handle, offset, length, future = pending.popleft()
                data = self._data(await future, length)
                await sink.write(data)
                while len(data) < length:
                    # A server may answer with less than was asked for; the rest is asked for by itself.
                    offset, length = offset + len(data), length - len(data)
                    (future,) = await handle.connection.send([messages.read(handle.opened.file_id, offset, length)])
                    data = self._data(await future, length)
                    await sink.write(data)
        finally:
            for *_, future in pending:
                future.cancel()

    def _data(self, reply: Reply, length: int) -> memoryview:
        if reply.status == status.END_OF_FILE:
            raise changed(self._path)
        if reply.status:
            raise status.os_error(reply.status, self._path)
        data = messages.parse_read(reply.message)
        if not data:
            raise changed(self._path)
        if len(data) > length:
            raise ProtocolError(f"the server sent more of {self._path} than it was asked for: do not trust it")
        return data


def changed(path: str) -> ChangedFile:
    """Return the error for a file that is not what it was when it was opened."""
    return ChangedFile(f"{path} changed, or lost its end, while it was read: try again when nobody writes it")
