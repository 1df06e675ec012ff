"""What lies in a folder, and below it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

from dvc_smb.names import is_temporary
from dvc_smb.share import Share, close_soon, open_with
from dvc_smb.smb2 import messages, status
from dvc_smb.smb2.messages import RELATED_FILE, Entry

#: Bytes of names asked for together with opening a folder; about 1,500 names.
FIRST_BUFFER = 1 << 18
#: Bytes of names asked for at a time in a larger folder.
BUFFER = 1 << 20
#: Folders listed at once.
PARALLEL = 64


async def list_folder(share: Share, name: str, path: str, pattern: str = "*") -> list[Entry]:
    """Return what lies in a folder, in the server's order and with the case that the server has.

    Args:
        pattern: as the server matches it, with ``*`` and ``?``.

    Raises:
        NotADirectoryError: it is a file.
        ProtocolError: the server lists a name that no file can have.
    """

    async def attempt() -> list[Entry]:
        entries = await _list_at_once(share, name, path, pattern)
        return entries if entries is not None else await _list_in_turns(share, name, path, pattern)

    return await share.pool.retrying(attempt)


async def _list_at_once(share: Share, name: str, path: str, pattern: str) -> list[Entry] | None:
    """List a folder in one round trip; None: it has too many names for that."""
    connection = await share.pool.pick()
    length = min(FIRST_BUFFER, connection.max_transact)
    futures = await connection.send(
        [
            messages.create(name, messages.LIST_DIRECTORY, messages.OPEN, messages.DIRECTORY),
            messages.listing(RELATED_FILE, length, pattern=pattern, restart=True),
            # It only says that there is no more: 64 kB are the least to pay for.
            messages.listing(RELATED_FILE, messages.CREDIT_SIZE, pattern=pattern),
            messages.close(RELATED_FILE),
        ]
    )
    created, first, second, _ = [await future for future in futures]
    if created.status:
        raise status.os_error(created.status, path)
    if first.status in (status.NO_MORE_FILES, status.NO_SUCH_FILE):
        return []
    if first.status:
        raise status.os_error(first.status, path)
    entries = messages.parse_listing(first.message)
    if second.status == status.NO_MORE_FILES:
        return entries
    if second.status:
        raise status.os_error(second.status, path)
    return None


async def _list_in_turns(share: Share, name: str, path: str, pattern: str) -> list[Entry]:
    connection = await share.pool.pick()
    length = min(BUFFER, connection.max_transact)
    request = messages.create(name, messages.LIST_DIRECTORY, messages.OPEN, messages.DIRECTORY)
    opened, _ = await open_with(connection, [request], path)
    entries: list[Entry] = []
    try:
        while True:
            (future,) = await connection.send([messages.listing(opened.file_id, length, pattern=pattern)])
            reply = await future
            if reply.status in (status.NO_MORE_FILES, status.NO_SUCH_FILE):
                return entries
            if reply.status:
                raise status.os_error(reply.status, path)
            entries += messages.parse_listing(reply.message)
    finally:
        close_soon(connection, opened.file_id)


def without_temporaries(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Leave out what uploads under way, or clients that died, have in a folder."""
    return (entry for entry in entries if not is_temporary(entry.name))


async def walk(
    share: Share, name: str, path: str, maxdepth: int | None = None
) -> AsyncIterator[tuple[str, list[Entry]]]:
    """Yield each folder's path and what lies in it, from the top; the folders of one level are listed side by side.

    Args:
        maxdepth: how many levels; None: all.

    Raises:
        FileNotFoundError: ``path`` does not exist. Folders below it may vanish meanwhile.
        NotADirectoryError: ``path`` is a file.
    """
    level = [(name, path)]
    depth = 0
    room = asyncio.Semaphore(PARALLEL)

    async def entries_of(name: str, path: str) -> list[Entry]:
        async with room:
            try:
                return await list_folder(share, name, path)
            except FileNotFoundError:
                if not depth:
                    raise
                return []

    while level and depth != maxdepth:
        found = await asyncio.gather(*(entries_of(*folder) for folder in level))
        below = []
        for (name, path), entries in zip(level, found, strict=True):
            yield path, entries
            below += [
                (f"{name}/{entry.name}".lstrip("/"), f"{path}/{entry.name}") for entry in entries if entry.is_directory
            ]
        level, depth = below, depth + 1


async def remove_tree(share: Share, name: str, path: str) -> None:
    """Delete a folder with all that is in it, temporaries too.

    Raises:
        OSError: something cannot be deleted; what was deleted before that stays deleted.
    """
    room = asyncio.Semaphore(PARALLEL)
    folders = []
    offset = len(path) - len(name)

    async def remove(remove_one: Callable[[str, str], Awaitable[None]], one: str) -> None:
        async with room:
            await remove_one(one[offset:], one)

    async for folder, entries in walk(share, name, path):
        folders.append(folder)
        files = [f"{folder}/{entry.name}" for entry in entries if not entry.is_directory]
        await asyncio.gather(*(remove(share.remove_file, file) for file in files))
    for depth in sorted({folder.count("/") for folder in folders}, reverse=True):
        same = [folder for folder in folders if folder.count("/") == depth]
        await asyncio.gather(*(remove(share.remove_folder, folder) for folder in same))
