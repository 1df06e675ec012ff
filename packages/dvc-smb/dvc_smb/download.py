"""From the share to the local disk, or into memory: one round trip for a small file, a window of reads for a large one.

A local file gets its name only when it is complete and verified.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from dvc_smb import hashing, local_files, names
from dvc_smb.share import Share
from dvc_smb.smb2 import messages, status
from dvc_smb.smb2.messages import RELATED_FILE, Opened
from dvc_smb.streams import OPTIONS, Stream, changed

if TYPE_CHECKING:
    from hashlib import _Hash

#: Bytes asked for together with opening a file; most files of a dataset end within them.
FIRST_READ = 1 << 20


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

            def keep() -> None:
                if expected:
                    _check(first, expected, path)
                local_files.save(first, local)

            await share.aside.run(keep, len(first))
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
            messages.create(name, messages.READ_DATA, messages.OPEN, OPTIONS),
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
            raise changed(path)
        return opened, memoryview(b"")
    if got.status:
        raise status.os_error(got.status, path)
    return opened, messages.parse_read(got.message)


async def _download_stream(
    share: Share, name: str, path: str, local: str, expected: str | None, callback: Callback
) -> None:
    temporary = local_files.temporary_name(local)
    md5 = hashing.new_md5() if expected else None
    descriptor = local_files.create(temporary)
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
        os.replace(temporary, local)  # noqa: PTH105
    except BaseException:
        callback.absolute_update(0)
        local_files.remove(temporary)
        raise


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
        local_files.write_all(self._descriptor, data, self._local)
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
