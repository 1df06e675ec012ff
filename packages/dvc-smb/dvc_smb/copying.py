"""From one place of the server to another, through this machine's memory but not its disk."""

from __future__ import annotations

from dvc_smb.share import Share
from dvc_smb.streams import Stream
from dvc_smb.upload import Upload


async def copy(share: Share, name: str, path: str, other: Share, target: str, target_path: str) -> None:
    """Copy a file, a window of chunks at a time; it has its new name when it is complete.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: it, or the target, is a folder.
    """

    async def attempt() -> None:
        async with share.streams, Stream(share, name, path) as source, Upload(other, target, target_path) as copied:
            await source.copy(copied, 0, source.size)
            await copied.commit()

    await share.pool.retrying(attempt)
    await other.clean()
