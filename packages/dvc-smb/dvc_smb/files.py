"""File objects: ``open`` of the fsspec filesystem, for reading anywhere and for writing from start to end."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any

from fsspec.asyn import sync
from fsspec.spec import AbstractBufferedFile

from dvc_smb.streams import Stream
from dvc_smb.upload import SMALL, Upload, store

if TYPE_CHECKING:
    from dvc_smb.filesystem import SMB

#: Bytes read ahead, or collected before they are sent: a full window keeps the connection busy meanwhile.
BLOCK = 8 << 20


class SMBFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file of a share, opened with mode ``rb``, ``wb``, ``ab`` or ``xb``.

    What is written has the file's name when ``close`` has returned, and all at once: whoever reads meanwhile sees the
    old content, and leaving a ``with`` by an exception, or forgetting to close, changes nothing.
    """

    fs: SMB

    def __init__(self, fs: SMB, path: str, mode: str = "rb", block_size: Any = BLOCK, **options: Any) -> None:
        if mode == "xb" and fs.exists(path):
            raise FileExistsError(errno.EEXIST, "it exists already", path)
        self._upload: Upload | None = None
        super().__init__(fs, path, mode, BLOCK if block_size in (None, "default") else block_size, **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.cat_file(self.path, start=start, end=end))

    async def _start(self) -> Upload:
        share, name = self.fs.share_of(self.path)
        upload = Upload(share, name, self.path)
        await upload.__aenter__()
        try:
            if self.mode == "ab":
                await self._copy_old(upload)
        except BaseException as error:
            await upload.__aexit__(type(error), error, error.__traceback__)
            raise
        return upload

    async def _copy_old(self, upload: Upload) -> None:
        share, name = self.fs.share_of(self.path)
        try:
            async with Stream(share, name, self.path) as old:
                await old.copy(upload, 0, old.size)
        except FileNotFoundError:
            return

    def _upload_chunk(self, final: bool = False) -> bool:
        # The buffer is not used again after this call, so that the view of it may stay in the window.
        try:
            sync(self.fs.loop, self._send, self.buffer.getbuffer(), final and self.autocommit)
        except BaseException:
            self.discard()
            raise
        return True

    async def _send(self, data: memoryview, last: bool) -> None:
        if last and self._upload is None and self.mode != "ab" and len(data) <= SMALL:
            share, name = self.fs.share_of(self.path)
            await store(share, data, name, self.path, replace=self.mode != "xb")
            return
        if self._upload is None:
            self._upload = await self._start()
        await self._upload.write(data)
        if last:
            await self._upload.commit(replace=self.mode != "xb")

    def commit(self) -> None:
        """Give the file its name, if it was opened with ``autocommit=False``."""
        if self._upload is not None and not self._upload.committed:
            sync(self.fs.loop, self._upload.commit, replace=self.mode != "xb")

    def discard(self) -> None:
        """Throw away what was written."""
        upload, self._upload = self._upload, None
        self.forced = True
        if upload is not None and not upload.committed:
            sync(self.fs.loop, upload.__aexit__, None, None, None)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self.writable():
            self.discard()
            self.closed = True
        else:
            self.close()

    def __del__(self) -> None:
        if not self.closed and self.mode != "rb":
            self.closed = True
            upload, loop = self._upload, self.fs.loop
            if upload is not None and loop.is_running():
                asyncio.run_coroutine_threadsafe(upload.__aexit__(None, None, None), loop)
