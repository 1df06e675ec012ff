"""One share: names in it, each looked up, made, moved or removed in one round trip.

Names are those of :class:`dvc_smb.names.Location`; ``path`` is what errors call the file.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import TypeVar

from dvc_smb.aside import Aside
from dvc_smb.options import Options
from dvc_smb.smb2 import messages, status
from dvc_smb.smb2.connection import Connection, Reply
from dvc_smb.smb2.messages import RELATED_FILE, Opened, Request
from dvc_smb.smb2.pool import Pool

T = TypeVar("T")
#: What was done once, and for which folder.
Key = tuple[str, str]

#: Files that are streamed at once; each holds a window of chunks in memory.
STREAMS = 4


class Share:
    """A share of a server, with what is known of its folders.

    Attributes:
        pool: the connections to it.
        verify: compare objects with their names.
        streams: taken while a large file is under way, so that many of them do not fill the memory.
    """

    def __init__(self, options: Options, name: str) -> None:
        self.pool = Pool(options, name)
        self.path = f"/{name}"
        self.verify = options.verify
        self.streams = asyncio.Semaphore(STREAMS)
        self.aside = Aside()
        self._abandoned: list[str] = []
        self._done: set[Key] = set()
        self._doing: dict[Key, asyncio.Future[None]] = {}

    async def close(self) -> None:
        """Close all connections."""
        await self.pool.close()

    async def stat(self, name: str, path: str) -> Opened:
        """Return what a file or folder is.

        Raises:
            OSError: as its NTSTATUS says, for one FileNotFoundError.
        """
        request = messages.create(name, messages.READ_ATTRIBUTES)
        return await self.pool.retrying(lambda: self._open_and_close(request, path))

    async def make_folder(self, name: str, path: str, *, exist_ok: bool) -> None:
        """Make one folder, whose parent exists.

        Raises:
            FileExistsError: there is one and ``exist_ok`` is false, or a file has the name.
            FileNotFoundError: there is no parent.
        """
        attempts = Attempts()
        how = messages.OPEN_OR_CREATE if exist_ok else messages.CREATE_NEW
        request = messages.create(name, messages.READ_ATTRIBUTES, how, messages.DIRECTORY)

        async def make() -> None:
            try:
                await self._open_and_close(request, path)
            except FileExistsError:
                if not attempts.repeated or not (await self.stat(name, path)).is_directory:
                    raise
            except NotADirectoryError as error:
                raise FileExistsError(error.errno, "a file has the name of this folder", path) from error

        await self.pool.retrying(attempts.count(make))

    async def ensure_folder(self, name: str, path: str) -> None:
        """Make a folder and its parents where they are missing, and remember that they exist."""
        if name:
            await self.once(("folder", name), lambda: self._ensure_folder(name, path))

    async def _ensure_folder(self, name: str, path: str) -> None:
        try:
            await self.make_folder(name, path, exist_ok=True)
        except FileNotFoundError:
            parent = posixpath.dirname(name)
            if not parent:
                raise
            self.forget(("folder", parent))
            await self.ensure_folder(parent, posixpath.dirname(path))
            await self.make_folder(name, path, exist_ok=True)

    async def remove_file(self, name: str, path: str) -> None:
        """Delete a file."""
        await self._remove(name, path, messages.NOT_DIRECTORY)

    async def remove_folder(self, name: str, path: str) -> None:
        """Delete an empty folder.

        Raises:
            OSError: ENOTEMPTY, it is not empty.
        """
        await self._remove(name, path, messages.DIRECTORY)
        self.forget_folders(name)

    async def _remove(self, name: str, path: str, kind: int) -> None:
        attempts = Attempts()
        opened = messages.create(name, messages.DELETE | messages.READ_ATTRIBUTES, messages.OPEN, kind)

        async def remove() -> None:
            try:
                # Not DELETE_ON_CLOSE: with it, servers report a folder that is not empty at close, or never.
                await self.call([opened, messages.delete(RELATED_FILE), messages.close(RELATED_FILE)], path)
            except FileNotFoundError:
                if not attempts.repeated:
                    raise

        await self.pool.retrying(attempts.count(remove))

    async def give_up(self, temporary: str, error: BaseException | None) -> None:
        """Delete a temporary whose upload has failed: now, or if the connection was lost, after a later upload."""
        if isinstance(error, (ConnectionError, TimeoutError)):
            self._abandoned.append(temporary)
        else:
            await self.discard(temporary)

    async def clean(self) -> None:
        """Delete the temporaries of uploads whose connections were lost."""
        while self._abandoned:
            await self.discard(self._abandoned.pop())

    async def discard(self, name: str) -> None:
        """Delete a file if that is possible now."""
        opened = messages.create(name, messages.DELETE, messages.OPEN, messages.NOT_DIRECTORY)
        with suppress(OSError):
            await self.call([opened, messages.delete(RELATED_FILE), messages.close(RELATED_FILE)], name)

    async def move(self, name: str, target: str, path: str, *, replace: bool = True) -> None:
        """Rename a file or folder within the share; a file replaces a file.

        Raises:
            FileNotFoundError: the file, or the target's folder, is missing.
            FileExistsError: the target exists and ``replace`` is false, or it is a folder.
        """
        attempts = Attempts()
        opened = messages.create(name, messages.DELETE | messages.READ_ATTRIBUTES)
        renamed = messages.rename(RELATED_FILE, target, replace=replace)

        async def move() -> None:
            try:
                await self.call([opened, renamed, messages.close(RELATED_FILE)], path)
            except FileNotFoundError:
                # The answer to an earlier attempt was lost: it was done if the target is there now.
                if not attempts.repeated:
                    raise
                await self.stat(target, path)

        await self.pool.retrying(attempts.count(move))
        self.forget_folders(name)

    async def space(self) -> tuple[int, int]:
        """Return the bytes of the share's disk, and those that are free for this user; quotas count."""
        opened = messages.create("", messages.READ_ATTRIBUTES)
        requests = [opened, messages.space(RELATED_FILE), messages.close(RELATED_FILE)]

        async def ask() -> tuple[int, int]:
            return messages.parse_space((await self.call(requests, self.path))[1])

        return await self.pool.retrying(ask)

    async def call(self, requests: list[Request], path: str) -> list[memoryview]:
        """Send one compound over some connection and return the answers.

        Raises:
            OSError: the first that failed.
        """
        connection = await self.pool.pick()
        return await answers(connection, requests, path)

    async def _open_and_close(self, request: Request, path: str) -> Opened:
        replies = await self.call([request, messages.close(RELATED_FILE)], path)
        return messages.parse_create(replies[0])

    async def once(self, key: Key, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Do ``work`` unless it was done under this key; whoever asks meanwhile waits for the one that does it."""
        if key in self._done:
            return
        future = self._doing.get(key)
        if future is None:
            future = self._doing[key] = asyncio.ensure_future(work())
            future.add_done_callback(lambda future: self._finished(key, future))
        # Whoever is cancelled does not cancel the others.
        await asyncio.shield(future)

    def _finished(self, key: Key, future: asyncio.Future[None]) -> None:
        self._doing.pop(key, None)
        if not future.cancelled() and future.exception() is None:
            self._done.add(key)

    def forget_all(self) -> None:
        """Forget everything that :meth:`once` has done."""
        self._done.clear()

    def forget(self, key: Key) -> None:
        """Do the work of :meth:`once` again when it is next asked for."""
        self._done.discard(key)

    def forget_folders(self, name: str) -> None:
        """Forget that this folder and those below it exist."""
        inside = name + "/"
        self._done = {key for key in self._done if key[1] != name and not key[1].startswith(inside)}


class Attempts:
    """Tells an operation whether an earlier attempt may already have done its work."""

    def __init__(self) -> None:
        self._count = 0

    @property
    def repeated(self) -> bool:
        return self._count > 1

    def count(self, operation: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
        """Return the operation, each call of which is counted."""

        def counted() -> Awaitable[T]:
            self._count += 1
            return operation()

        return counted


async def answers(connection: Connection, requests: list[Request], path: str) -> list[memoryview]:
    """Send one compound and return the answers.

    Raises:
        OSError: the first that failed, made of its NTSTATUS.
    """
    replies = [await future for future in await connection.send(requests)]
    for reply in replies:
        if reply.status:
            raise status.os_error(reply.status, path)
    return [reply.message for reply in replies]


async def open_with(
    connection: Connection, requests: list[Request], path: str, *, temporary: bool = False
) -> tuple[Opened, list[Reply]]:
    """Send a compound that opens a file and keeps it open; return what was opened and the answers to the rest.

    Whoever is cancelled meanwhile leaves no open file behind, and if it was to be a ``temporary`` one, no file.

    Raises:
        OSError: the file could not be opened.
    """
    first, *rest = await connection.send(requests)
    try:
        reply = await asyncio.shield(first)
        replies = [await future for future in rest]
    except asyncio.CancelledError:
        in_background(_close_late(connection, first, temporary))
        raise
    if reply.status:
        raise status.os_error(reply.status, path)
    return messages.parse_create(reply.message), replies


async def _close_late(connection: Connection, opening: asyncio.Future[Reply], temporary: bool) -> None:
    reply = await opening
    if not reply.status:
        file_id = messages.parse_create(reply.message).file_id
        await (drop if temporary else close)(connection, file_id)


async def drop(connection: Connection, file_id: bytes) -> None:
    """Close a file that was opened with ``DELETE`` access, and delete it."""
    await answers(connection, [messages.delete(file_id), messages.close(RELATED_FILE)], "")


async def close(connection: Connection, file_id: bytes) -> None:
    """Close a file, without waiting for the answer."""
    await connection.send([messages.close(file_id)])


_background: set[asyncio.Task[None]] = set()


def in_background(work: Coroutine[object, object, None]) -> None:
    """Have work done that nobody waits for and whose failure, like that of its connection, changes nothing."""

    async def quietly() -> None:
        with suppress(OSError):
            await work

    task = asyncio.ensure_future(quietly())
    _background.add(task)
    task.add_done_callback(_background.discard)
