"""From the share to the local disk, or into memory: one round trip for a small file, a window of reads for a large one.

A local file gets its name only when it is complete and verified.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from dvc_smb import hashing, names
from dvc_smb.share import Share, close_soon, open_with
from dvc_smb.smb2 import messages, status
from dvc_smb.smb2.connection import Connection, Reply
from dvc_smb.smb2.errors import SMBError
from dvc_smb.smb2.messages import RELATED_FILE, Opened

if TYPE_CHECKING:
    from hashlib import _Hash

#: Bytes asked for together with opening a file; most files of a dataset end within them.
FIRST_READ = 1 << 20
#: Bytes of one read or write of a larger file. 4 MB were half as fast: the server's and our work no longer overlap.
CHUNK = 1 << 20
#: Reads or writes under way for each large file, over all its connections.
WINDOW = 16
#: From this size on a file is read and written over all connections.
STRIPED = 16 << 20

_NO_OPTIONS = messages.NOT_DIRECTORY | messages.SEQUENTIAL
_local_names = itertools.count()


class ChangedFile(SMBError):
    """The file in the share changed, or lost its end, while it was read."""


class Sink(Protocol):
    """Takes the content of a file in order."""

    async def write(self, data: memoryview) -> None: ...


class Handle(NamedTuple):
    """One opening of a file, on one connection."""

    connection: Connection
    opened: Opened


async def download(share: Share, name: str, path: str, local: str, callback: Callback = DEFAULT_CALLBACK) -> None:
    """Copy a file from the share to ``local``.

    Raises:
        AlteredObject: it is an object of a DVC remote whose content is not what its name says.
        ChangedFile: its length changed meanwhile.
        IsADirectoryError: it is a folder.
    """
    expected = names.md5_in_name(path) if share.verify else None

    async def attempt() -> None:
        opened, first = await _open_and_read(share, name, path, 0, FIRST_READ)
        callback.set_size(opened.size)
        if len(first) == opened.size:
            if expected:
                _check(first, expected, path)
            _save(first, local)
            callback.relative_update(opened.size)
            return
        async with share.streams:
            await _download_stream(share, name, path, local, expected, callback)

    await share.pool.retrying(attempt)


async def read(share: Share, name: str, path: str, start: int = 0, end: int | None = None) -> bytes:
    """Return the bytes of a file from ``start`` up to ``end``, which may lie behind the file's end.

    Raises:
        AlteredObject: all of an object of a DVC remote was read, and it is not what its name says.
        ChangedFile: its length changed meanwhile.
    """
    wanted = None if end is None else max(end - start, 0)
    expected = names.md5_in_name(path) if share.verify and start == 0 else None

    async def attempt() -> bytes:
        opened, first = await _open_and_read(
            share, name, path, start, FIRST_READ if wanted is None else min(wanted, FIRST_READ)
        )
        stop = opened.size if end is None else min(end, opened.size)
        content: bytes | bytearray | memoryview = first
        if len(first) < stop - start:
            memory = _Memory()
            async with share.streams, Stream(share, name, path) as stream:
                await stream.copy(memory, start, stop)
            content = memory.content
        if expected and len(content) == opened.size:
            _check(content, expected, path)
        return bytes(content)

    return await share.pool.retrying(attempt)


async def _open_and_read(share: Share, name: str, path: str, start: int, length: int) -> tuple[Opened, memoryview]:
    """Open, read and close in one round trip."""
    connection = await share.pool.pick()
    futures = await connection.send(
        [
            messages.create(name, messages.READ_DATA, messages.OPEN, _NO_OPTIONS),
            messages.read(RELATED_FILE, start, max(1, min(length, connection.max_read))),
            messages.close(RELATED_FILE),
        ]
    )
    created, got, _ = [await future for future in futures]
    if created.status:
        raise status.os_error(created.status, path)
    opened = messages.parse_create(created.message)
    if got.status == status.END_OF_FILE or not length:
        if start < opened.size and length:
            raise _changed(path)
        return opened, memoryview(b"")
    if got.status:
        raise status.os_error(got.status, path)
    return opened, messages.parse_read(got.message)


async def _download_stream(
    share: Share, name: str, path: str, local: str, expected: str | None, callback: Callback
) -> None:
    temporary = _local_temporary(local)
    md5 = hashing.new_md5() if expected else None
    descriptor = _create_local(temporary)
    try:
        try:
            async with Stream(share, name, path) as stream:
                sink = _Disk(descriptor, local, md5, callback)
                try:
                    await stream.copy(sink, 0, stream.size)
                finally:
                    await sink.finish()
                if md5 and expected:
                    hashing.check_pulled(md5, expected, path, stream.size)
        finally:
            os.close(descriptor)
        os.replace(temporary, local)
    except BaseException:
        callback.absolute_update(0)
        _remove_local(temporary)
        raise


class Stream:
    """A file opened for reading on as many connections as its size deserves; an async context.

    Attributes:
        size: bytes at the time of opening.
    """

    def __init__(self, share: Share, name: str, path: str) -> None:
        self._share = share
        self._request = messages.create(name, messages.READ_DATA, messages.OPEN, _NO_OPTIONS)
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
                raise _changed(self._path)
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
            close_soon(handle.connection, handle.opened.file_id)

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
                    (future,) = await handle.connection.send(
                        [messages.read(handle.opened.file_id, position, length)]
                    )
                    pending.append((handle, position, length, future))
                    position += length
                handle, offset, length, future = pending.popleft()
                data = self._data(await future)
                await sink.write(data)
                while len(data) < length:
                    # A server may answer with less than was asked for; the rest is asked for by itself.
                    offset, length = offset + len(data), length - len(data)
                    (future,) = await handle.connection.send([messages.read(handle.opened.file_id, offset, length)])
                    data = self._data(await future)
                    await sink.write(data)
        finally:
            for *_, future in pending:
                future.cancel()

    def _data(self, reply: Reply) -> memoryview:
        if reply.status == status.END_OF_FILE:
            raise _changed(self._path)
        if reply.status:
            raise status.os_error(reply.status, self._path)
        data = messages.parse_read(reply.message)
        if not data:
            raise _changed(self._path)
        return data


class _Memory:
    """Takes a file into memory."""

    def __init__(self) -> None:
        self.content = bytearray()

    async def write(self, data: memoryview) -> None:
        self.content += data


class _Disk:
    """Writes and hashes in a thread, one chunk while the next ones arrive; both release the interpreter's lock."""

    def __init__(self, descriptor: int, local: str, md5: _Hash | None, callback: Callback) -> None:
        self._descriptor = descriptor
        self._local = local
        self._md5 = md5
        self._callback = callback
        self._work: asyncio.Future[None] | None = None

    async def write(self, data: memoryview) -> None:
        await self.finish()
        self._work = asyncio.get_running_loop().run_in_executor(None, self._take, data)
        self._callback.relative_update(len(data))

    def _take(self, data: memoryview) -> None:
        _write_all(self._descriptor, data, self._local)
        if self._md5:
            self._md5.update(data)

    async def finish(self) -> None:
        """Wait until all is written; also when cancelled, since the thread uses the open file."""
        work, self._work = self._work, None
        if work is None:
            return
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise


def _check(content: bytes | bytearray | memoryview, expected: str, path: str) -> None:
    md5 = hashing.new_md5()
    md5.update(content)
    hashing.check_pulled(md5, expected, path, len(content))


def _save(content: memoryview, local: str) -> None:
    """Write a local file that has its name only when complete."""
    temporary = _local_temporary(local)
    descriptor = _create_local(temporary)
    try:
        try:
            _write_all(descriptor, content, local)
        finally:
            os.close(descriptor)
        os.replace(temporary, local)
    except BaseException:
        _remove_local(temporary)
        raise


def _local_temporary(local: str) -> str:
    return os.path.join(os.path.dirname(local), f".dvc-smb-{os.getpid()}-{next(_local_names)}.part")  # noqa: PTH118, PTH120


def _create_local(temporary: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        return os.open(temporary, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(temporary), exist_ok=True)  # noqa: PTH103, PTH120
        return os.open(temporary, flags, 0o666)


def _write_all(descriptor: int, data: memoryview, local: str) -> None:
    try:
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError as error:
        raise OSError(error.errno, error.strerror, local) from error


def _remove_local(temporary: str) -> None:
    with suppress(OSError):
        os.unlink(temporary)  # noqa: PTH108


def _changed(path: str) -> ChangedFile:
    return ChangedFile(f"{path} changed, or lost its end, while it was read: try again when nobody writes it")
