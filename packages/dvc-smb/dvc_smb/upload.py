"""From the local disk, or memory, to the share, where a file has its name only when it is complete and verified.

Content goes to a temporary (:mod:`dvc_smb.temporaries`), which is renamed when the server has confirmed every byte.
The rename is a message of its own: in one compound with the write, a server whose disk is full would rename although
the write has failed ([MS-SMB2] 3.3.5.2.7.2: only what needs a file that could not be opened fails with it).
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import posixpath
import stat
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from dvc_smb import hashing, names, temporaries
from dvc_smb.errors import Incomplete
from dvc_smb.share import Share, answers, drop, open_with
from dvc_smb.smb2 import messages, status
from dvc_smb.smb2.connection import Connection, Reply
from dvc_smb.smb2.messages import RELATED_FILE, Request
from dvc_smb.streams import CHUNK, STRIPED, WINDOW, Handle

if TYPE_CHECKING:
    from hashlib import _Hash

#: Up to this size a file is read whole and sent in one message.
SMALL = 1 << 20

_ACCESS = messages.WRITE_DATA | messages.DELETE | messages.READ_ATTRIBUTES


async def upload(
    share: Share, local: str, name: str, path: str, callback: Callback = DEFAULT_CALLBACK, *, replace: bool = True
) -> None:
    """Copy a local file to the share; folders are made as needed.

    Raises:
        AlteredObject: it was about to be an object of a DVC remote, and its content is not what that name says.
        FileExistsError: the file exists and ``replace`` is false.
        IsADirectoryError: the local path, or the target, is a folder.
        OSError: the share is full, or may not be written.
    """
    expected = names.md5_in_name(path) if share.verify else None
    size, content = await share.aside.run(lambda: _read_small(local, expected, path), os.stat(local).st_size)  # noqa: PTH116
    callback.set_size(size)
    if content is not None:
        await store(share, content, name, path, replace=replace)
        callback.relative_update(size)
        return

    async def attempt() -> None:
        callback.absolute_update(0)
        with _LocalFile(local, expected is not None) as source:
            async with share.streams, Upload(share, name, path, size) as target:
                await source.copy(target, size, callback)
                if expected and source.md5:
                    hashing.check_pushed(source.md5, expected, local, path)
                await target.commit(replace=replace)

    await share.pool.retrying(lambda: _with_folders(share, attempt))
    await share.clean()


def _read_small(local: str, expected: str | None, path: str) -> tuple[int, bytes | None]:
    """Return a local file's size, and its content, compared with the expected md5, if that is small."""
    descriptor = os.open(local, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), local)
        if found.st_size > SMALL:
            return found.st_size, None
        content = os.read(descriptor, SMALL + 1)
    finally:
        os.close(descriptor)
    if len(content) != found.st_size:
        raise _changed(local)
    if expected:
        md5 = hashing.new_md5()
        md5.update(content)
        hashing.check_pushed(md5, expected, local, path)
    return found.st_size, content


async def store(share: Share, content: bytes | memoryview, name: str, path: str, *, replace: bool = True) -> None:
    """Write a file of the share from memory; folders are made as needed.

    Raises:
        FileExistsError: the file exists and ``replace`` is false.
        IsADirectoryError: the target is a folder.
        OSError: the share is full, or may not be written.
    """

    async def attempt() -> None:
        if len(content) <= SMALL:
            await _store_small(share, content, name, path, replace)
            return
        async with share.streams, Upload(share, name, path, len(content)) as target:
            await target.write(memoryview(content))
            await target.commit(replace=replace)

    await share.pool.retrying(lambda: _with_folders(share, attempt))
    await share.clean()


async def _with_folders(share: Share, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work, once more if somebody has removed a folder since we made or saw it."""
    try:
        await work()
    except FileNotFoundError:
        share.forget_all()
        await work()


async def _store_small(share: Share, content: bytes | memoryview, name: str, path: str, replace: bool) -> None:
    temporary = await _new_temporary(share, name, path)
    connection = await share.pool.pick()
    requests = [_create(temporary)]
    if content:
        requests.append(messages.write(RELATED_FILE, 0, content))
    try:
        opened, written = await open_with(connection, requests, path, temporary=True)
        try:
            for reply in written:
                _confirm(reply, len(content), path)
        except OSError:
            with suppress(OSError):
                await drop(connection, opened.file_id)
            raise
        renamed = messages.rename(opened.file_id, name, replace=replace)
        await _rename(share, connection, [renamed, messages.close(RELATED_FILE)], name, path)
    except BaseException as error:
        await share.give_up(temporary, error)
        raise


class Upload:
    """A large file under way to the share; an async context, which removes what was not committed.

    Args:
        size: bytes that will come, as far as known; large files are sent over all connections.
    """

    def __init__(self, share: Share, name: str, path: str, size: int | None = None) -> None:
        self._share = share
        self._name = name
        self._path = path
        self._expected = size
        self._temporary = ""
        self._handles: list[Handle] = []
        self._cycle = itertools.cycle(self._handles)
        self._pending: deque[tuple[int, asyncio.Future[Reply]]] = deque()
        self._sent = 0
        self._confirmed = 0
        self.committed = False

    async def __aenter__(self) -> Upload:
        self._temporary = await _new_temporary(self._share, self._name, self._path)
        connection = await self._share.pool.pick()
        try:
            await self._open(connection, _create(self._temporary))
            if self._expected is not None and self._expected >= STRIPED:
                again = messages.create(self._temporary, messages.WRITE_DATA, messages.OPEN, messages.NOT_DIRECTORY)
                others = [other for other in await self._share.pool.all() if other is not connection]
                await asyncio.gather(*(self._open(other, again) for other in others))
            # From now on the server removes the file by itself if this client or its connection dies.
            await answers(connection, [messages.delete(self._handles[0].opened.file_id)], self._path)
        except BaseException as error:
            await self._abort(error)
            raise
        self._cycle = itertools.cycle(self._handles)
        return self

    async def __aexit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if not self.committed:
            await self._abort(error)

    async def _open(self, connection: Connection, request: Request) -> None:
        opened, _ = await open_with(connection, [request], self._path, temporary=not self._handles)
        self._handles.append(Handle(connection, opened))

    async def write(self, data: memoryview) -> None:
        """Append; returns when there is room in the window, not when the server has confirmed."""
        while data:
            connection, opened = next(self._cycle)
            part = data[: min(CHUNK, connection.max_write)]
            (future,) = await connection.send([messages.write(opened.file_id, self._sent, part)])
            self._pending.append((len(part), future))
            self._sent += len(part)
            data = data[len(part) :]
            while len(self._pending) >= WINDOW:
                await self._confirm_oldest()

    async def commit(self, *, replace: bool = True) -> None:
        """Give the file its name, when the server has confirmed every byte and has them on its disk.

        Raises:
            FileExistsError: it exists and ``replace`` is false.
            Incomplete: the server has confirmed less than was sent.
        """
        while self._pending:
            await self._confirm_oldest()
        if self._confirmed != self._sent:
            raise _incomplete(self._path)
        (connection, opened), *others = self._handles
        # Large files alone, so that a write that fails late on the server's disk is told before the rename. Small ones
        # are not flushed: after a power failure of the server, one may be empty under its name, which a pull finds.
        await answers(connection, [messages.flush(opened.file_id)], self._path)
        await asyncio.gather(
            *(answers(other.connection, [messages.close(other.opened.file_id)], self._path) for other in others)
        )
        del self._handles[1:]
        requests = [
            messages.delete(opened.file_id, on=False),
            messages.rename(RELATED_FILE, self._name, replace=replace),
            messages.close(RELATED_FILE, query=True),
        ]
        self._handles.clear()
        closed = await _rename(self._share, connection, requests, self._name, self._path)
        if messages.parse_close(closed[-1]).size != self._sent:
            await self._share.discard(self._name)
            raise _incomplete(self._path)
        self.committed = True

    async def _confirm_oldest(self) -> None:
        length, future = self._pending.popleft()
        _confirm(await future, length, self._path)
        self._confirmed += length

    async def _abort(self, error: BaseException | None) -> None:
        for _, future in self._pending:
            future.cancel()
        # The last one to close it takes the file with it: whoever is told of the failure finds it gone.
        await asyncio.gather(
            *(drop(connection, opened.file_id) for connection, opened in self._handles[:1]),
            *(
                answers(connection, [messages.close(opened.file_id)], self._path)
                for connection, opened in self._handles[1:]
            ),
            return_exceptions=True,
        )
        await self._share.give_up(self._temporary, error)


class _LocalFile:
    """Reads and hashes in a thread, one chunk while the one before is sent; both release the interpreter's lock."""

    def __init__(self, local: str, hashed: bool) -> None:
        self._local = local
        self._descriptor = -1
        self.md5: _Hash | None = hashing.new_md5() if hashed else None

    def __enter__(self) -> _LocalFile:
        self._descriptor = os.open(self._local, os.O_RDONLY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def _read(self, position: int) -> bytes:
        data = os.pread(self._descriptor, CHUNK, position)
        if self.md5:
            self.md5.update(data)
        return data

    async def copy(self, target: Upload, size: int, callback: Callback) -> None:
        """Send all of the file.

        Raises:
            Incomplete: it is not ``size`` bytes long any more.
        """
        loop = asyncio.get_running_loop()
        position = 0
        ahead = loop.run_in_executor(None, self._read, position)
        try:
            while data := await asyncio.shield(ahead):
                position += len(data)
                ahead = loop.run_in_executor(None, self._read, position)
                await target.write(memoryview(data))
                callback.relative_update(len(data))
            if position != size:
                raise _changed(self._local)
        finally:
            # The thread uses the descriptor, which is about to be closed.
            with suppress(OSError):
                await asyncio.wait([ahead])


async def _new_temporary(share: Share, name: str, path: str) -> str:
    await share.ensure_folder(posixpath.dirname(name), posixpath.dirname(path))
    return await temporaries.new_name(share, name, path)


def _create(temporary: str) -> Request:
    # Others may not delete it: that is how cleaning tells what is in use.
    return messages.create(
        temporary, _ACCESS, messages.CREATE_NEW, messages.NOT_DIRECTORY, sharing=messages.SHARE_READ_WRITE
    )


async def _rename(
    share: Share, connection: Connection, requests: list[Request], name: str, path: str
) -> list[memoryview]:
    try:
        return await answers(connection, requests, path)
    except (PermissionError, FileExistsError):
        # That is how servers refuse a rename over a folder.
        if (await share.stat(name, path)).is_directory:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path) from None
        raise


def _confirm(reply: Reply, length: int, path: str) -> None:
    if reply.status:
        raise status.os_error(reply.status, path)
    if messages.parse_write(reply.message) != length:
        raise _incomplete(path)


def _incomplete(path: str) -> Incomplete:
    return Incomplete(f"the server has not written all of {path}, which keeps its old content: push again")


def _changed(local: str) -> Incomplete:
    return Incomplete(f"{local} changed while it was read: push again when nobody writes it")
