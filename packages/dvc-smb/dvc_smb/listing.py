"""What lies in a folder, and below it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple

from dvc_smb.errors import EndlessFolder
from dvc_smb.names import is_temporary
from dvc_smb.share import Share, close, in_background, open_with
from dvc_smb.smb2 import messages, status
from dvc_smb.smb2.messages import RELATED_FILE, Entry, Opened

#: Bytes of names asked for together with opening a folder; about 1,500 names.
FIRST_BUFFER = 1 << 18
#: Bytes of names asked for at a time in a larger folder.
BUFFER = 1 << 20
#: Folders listed at once.
PARALLEL = 64


class Folder(NamedTuple):
    """A folder and what lies in it."""

    opened: Opened
    entries: list[Entry]

    def looks_like(self, other: Folder) -> bool:
        """Return whether two paths may have led to one folder."""
        return self.opened.modified == other.opened.modified and self.entries == other.entries


async def list_folder(share: Share, name: str, path: str, pattern: str = "*") -> list[Entry]:
    """Return what lies in a folder, in the server's order and with the case that the server has.

    Args:
        pattern: as the server matches it, with ``*`` and ``?``.

    Raises:
        NotADirectoryError: it is a file.
        ProtocolError: the server lists a name that no file can have.
    """

    return (await _list(share, name, path, pattern)).entries


async def _list(share: Share, name: str, path: str, pattern: str = "*") -> Folder:
    async def attempt() -> Folder:
        folder = await _list_at_once(share, name, path, pattern)
        return folder or await _list_in_turns(share, name, path, pattern)

    return await share.pool.retrying(attempt)


async def _list_at_once(share: Share, name: str, path: str, pattern: str) -> Folder | None:
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
    opened = messages.parse_create(created.message)
    if first.status in (status.NO_MORE_FILES, status.NO_SUCH_FILE):
        return Folder(opened, [])
    if first.status:
        raise status.os_error(first.status, path)
    entries = messages.parse_listing(first.message)
    if second.status == status.NO_MORE_FILES:
        return Folder(opened, entries)
    if second.status:
        raise status.os_error(second.status, path)
    return None


async def _list_in_turns(share: Share, name: str, path: str, pattern: str) -> Folder:
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
                return Folder(opened, entries)
            if reply.status:
                raise status.os_error(reply.status, path)
            entries += messages.parse_listing(reply.message)
    finally:
        in_background(close(connection, opened.file_id))


def without_temporaries(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Leave out what uploads under way, or clients that died, have in a folder."""
    return (entry for entry in entries if not is_temporary(entry.name))


async def walk(
    share: Share, name: str, path: str, maxdepth: int | None = None
) -> AsyncIterator[tuple[str, list[Entry]]]:
    """Yield each folder's path and what lies in it, from the top; the folders of one level are listed side by side.

    Servers show a symbolic link as what it leads to, so that a folder can seem to lie in itself without end.

    Args:
        maxdepth: how many levels; None: all.

    Raises:
        EndlessFolder: a folder lies in itself.
        FileNotFoundError: ``path`` does not exist. Folders below it may vanish meanwhile.
        NotADirectoryError: ``path`` is a file.
    """
    room = asyncio.Semaphore(PARALLEL)
    level: list[_Place] = [_Place(name, path, ())]
    depth = 0

    async def folder_of(place: _Place) -> Folder | None:
        async with room:
            try:
                return await _list(share, place.name, place.path)
            except FileNotFoundError:
                if not depth:
                    raise
                return None

    while level and depth != maxdepth:
        folders = await asyncio.gather(*(folder_of(place) for place in level))
        below = []
        for place, folder in zip(level, folders, strict=True):
            if folder is None:
                continue
            for other, seen in place.above:
                if folder.entries and folder.looks_like(seen) and await _are_one(share, place, other):
                    raise EndlessFolder(f"{place.path} leads back to {other.path}: remove that symbolic link")
            yield place.path, folder.entries
            above = (*place.above, (place, folder))
            below += [place.below(entry.name, above) for entry in folder.entries if entry.is_directory]
        level, depth = below, depth + 1


class _Place(NamedTuple):
    """A folder still to be listed, below the folders ``above``."""

    name: str
    path: str
    above: tuple[tuple[_Place, Folder], ...]

    def below(self, name: str, above: tuple[tuple[_Place, Folder], ...]) -> _Place:
        return _Place(f"{self.name}/{name}".lstrip("/"), f"{self.path}/{name}", above)


async def _are_one(share: Share, place: _Place, other: _Place) -> bool:
    """Return whether two paths lead to the same folder."""

    async def number(place: _Place) -> int:
        opened = messages.create(place.name, messages.READ_ATTRIBUTES)
        requests = [opened, messages.index_number(RELATED_FILE), messages.close(RELATED_FILE)]
        return messages.parse_index_number((await share.call(requests, place.path))[1])

    first, second = await share.pool.retrying(lambda: asyncio.gather(number(place), number(other)))
    return first == second != 0


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
