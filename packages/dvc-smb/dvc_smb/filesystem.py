"""``SMB``: the shares of one server as an fsspec filesystem; paths are ``/share/folder/file``."""

from __future__ import annotations

import asyncio
import os
import posixpath
import weakref
from datetime import UTC, datetime
from glob import has_magic
from typing import Any

from fsspec.asyn import AsyncFileSystem, sync_wrapper
from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from dvc_smb import copying, download, listing, location, upload
from dvc_smb.errors import InvalidName
from dvc_smb.files import SMBFile
from dvc_smb.names import locate
from dvc_smb.options import OptionError, Options, unknown
from dvc_smb.share import Share
from dvc_smb.smb2.messages import Entry, Opened

_FSSPEC_OPTIONS = frozenset(
    {
        "asynchronous",
        "loop",
        "batch_size",
        "skip_instance_cache",
        "use_listings_cache",
        "listings_expiry_time",
        "max_paths",
    }
)
_NOT_THERE = (FileNotFoundError, NotADirectoryError, InvalidName)

Info = dict[str, Any]


class SMB(AsyncFileSystem):  # type: ignore[misc]
    """The shares of one server.

    Args:
        host, port, user, ...: see :class:`dvc_smb.options.Options`.
        fsspec: what every asynchronous fsspec filesystem takes.

    Raises:
        OptionError: an option is unknown, or its value is impossible.
    """

    protocol = "smb"
    root_marker = "/"

    def __init__(
        self,
        host: str,
        port: int = 445,
        user: str | None = None,
        password: str | None = None,
        domain: str | None = None,
        timeout: float = 30.0,
        encrypt: bool | None = None,
        sign: bool = True,
        auth: str = "ntlm",
        connections: int = 4,
        jobs: int = 64,
        verify: bool = True,
        guest: bool = False,
        **fsspec: Any,
    ) -> None:
        for option in fsspec:
            if option not in _FSSPEC_OPTIONS:
                raise OptionError(option, unknown(option, dict.fromkeys(Options.__dataclass_fields__)))
        self.options = Options(
            host=host,
            port=port,
            user=user,
            password=password,
            domain=domain,
            timeout=timeout,
            encrypt=encrypt,
            sign=sign,
            auth=auth,
            connections=connections,
            jobs=jobs,
            verify=verify,
            guest=guest,
        )
        super().__init__(**{"batch_size": self.options.jobs, **fsspec})
        self._shares: dict[str, Share] = {}
        if not self.asynchronous:
            weakref.finalize(self, _close_later, self._loop, self._shares)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """Return ``/share/folder/file`` of a path or a URL, without a slash at its end."""
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        path = os.fspath(path)
        if path[: len(location.PREFIX)].lower() == location.PREFIX:
            return location.strip(path)
        while "//" in path:
            path = path.replace("//", "/")
        return "/" + path.strip("/")

    def unstrip_protocol(self, name: str) -> str:
        """Return the URL of a path, without user and password."""
        return location.url_of(self.options, self._strip_protocol(name))

    @staticmethod
    def _get_kwargs_from_urls(url: str) -> dict[str, Any]:
        """Return the options that a URL names."""
        found = location.parse_url(url)
        parts = {"host": found.host, "port": found.port, "user": found.user, "domain": found.domain}
        return {option: value for option, value in parts.items() if value is not None}

    @property
    def fsid(self) -> str:
        """What two filesystems share exactly if they show the same files."""
        return f"smb://{self.options.server}"

    def share_of(self, path: str) -> tuple[Share, str]:
        """Return the share that a path lies in, and its name there.

        Raises:
            InvalidName: SMB cannot carry the path, or it names no share.
        """
        location = locate(path)
        share = self._shares.get(location.share)
        if share is None:
            share = self._shares[location.share] = Share(self.options, location.share)
        return share, location.name

    # What there is.

    async def _info(self, path: str, **_: Any) -> Info:
        path = self._strip_protocol(path)
        if path == "/":
            return {"name": path, "size": 0, "type": "directory"}
        share, name = self.share_of(path)
        return _info(path, await share.stat(name, path))

    async def _exists(self, path: str, **_: Any) -> bool:
        try:
            await self._info(path)
        except _NOT_THERE:
            return False
        return True

    async def _isfile(self, path: str) -> bool:
        try:
            return bool((await self._info(path))["type"] == "file")
        except _NOT_THERE:
            return False

    async def _isdir(self, path: str) -> bool:
        try:
            return bool((await self._info(path))["type"] == "directory")
        except _NOT_THERE:
            return False

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        share, name = self.share_of(path)
        try:
            entries = await listing.list_folder(share, name, path)
        except NotADirectoryError:
            return [await self._info(path)] if detail else [path]
        shown = [(posixpath.join(path, entry.name), entry) for entry in listing.without_temporaries(entries)]
        return [_info(*one) for one in shown] if detail else [one for one, _ in shown]

    async def _find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any
    ) -> Any:
        """Return all files below a folder, its own path if it is a file, nothing if it is not there.

        Raises:
            OSError: a folder cannot be listed; what DVC does not see it would take for missing.
        """
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        path = self._strip_protocol(path)
        share, name = self.share_of(path)
        found: dict[str, Any] = {}
        try:
            async for folder, entries in listing.walk(share, name, path, maxdepth):
                for entry in listing.without_temporaries(entries):
                    if withdirs or not entry.is_directory:
                        found[f"{folder}/{entry.name}"] = entry
            if withdirs:
                found[path] = await share.stat(name, path)
        except NotADirectoryError:
            found[path] = await share.stat(name, path)
        except FileNotFoundError:
            return {} if detail else []
        if detail:
            return {one: _info(one, found[one]) for one in sorted(found)}
        return sorted(found)

    async def _du(
        self, path: str, total: bool = True, maxdepth: int | None = None, withdirs: bool = False, **_: Any
    ) -> Any:
        found = await self._find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True)
        sizes = {one: info["size"] for one, info in found.items()}
        return sum(sizes.values()) if total else sizes

    async def _space(self, path: str) -> tuple[int, int]:
        """Return the bytes of the disk below a path, and those of them that are free for this user."""
        share, _ = self.share_of(self._strip_protocol(path))
        return await share.space()

    def created(self, path: str) -> datetime:
        """Return when a file was made, in UTC."""
        return datetime.fromtimestamp(self.info(path)["created"], UTC)

    def modified(self, path: str) -> datetime:
        """Return when a file was last written, in UTC."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    # Content.

    async def _get_file(self, rpath: str, lpath: str, callback: Callback = DEFAULT_CALLBACK, **_: Any) -> None:
        path = self._strip_protocol(rpath)
        share, name = self.share_of(path)
        try:
            await download.download(share, name, path, os.fspath(lpath), callback)
        except IsADirectoryError as error:
            if error.filename != path:
                raise
            os.makedirs(lpath, exist_ok=True)  # noqa: PTH103 - what fsspec expects of a folder

    async def _put_file(
        self, lpath: str, rpath: str, callback: Callback = DEFAULT_CALLBACK, mode: str = "overwrite", **_: Any
    ) -> None:
        path = self._strip_protocol(rpath)
        share, name = self.share_of(path)
        try:
            await upload.upload(share, os.fspath(lpath), name, path, callback, replace=mode != "create")
        except IsADirectoryError as error:
            if error.filename == path:
                raise
            await self._makedirs(path, exist_ok=True)

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        path = self._strip_protocol(path)
        share, name = self.share_of(path)
        start = start or 0
        if start < 0 or (end is not None and end < 0):
            size = (await share.stat(name, path)).size
            start = max(0, start + size) if start < 0 else start
            end = end + size if end is not None and end < 0 else end
        return await download.read(share, name, path, start, end)

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        path = self._strip_protocol(path)
        share, name = self.share_of(path)
        await upload.store(share, value, name, path, replace=mode != "create")

    async def _cp_file(self, path1: str, path2: str, **_: Any) -> None:
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        try:
            await copying.copy(*self.share_of(source), source, *self.share_of(target), target)
        except IsADirectoryError as error:
            if error.filename != source:
                raise
            await self._makedirs(target, exist_ok=True)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> SMBFile:
        options.pop("cache_options", None) if options.get("cache_options") is None else None
        return SMBFile(self, path, mode, **options)

    # Names.

    async def _mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        path = self._strip_protocol(path)
        share, name = self.share_of(path)
        if create_parents:
            await share.ensure_folder(posixpath.dirname(name), posixpath.dirname(path))
        await share.make_folder(name, path, exist_ok=False)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        path = self._strip_protocol(path)
        share, name = self.share_of(path)
        if not exist_ok:
            await self._mkdir(path)
        else:
            share.forget(("folder", name))
            await share.ensure_folder(name, path)

    async def _rmdir(self, path: str) -> None:
        path = self._strip_protocol(path)
        share, name = self.share_of(path)
        await share.remove_folder(name, path)

    async def _rm_file(self, path: str, **_: Any) -> None:
        path = self._strip_protocol(path)
        share, name = self.share_of(path)
        await share.remove_file(name, path)

    async def _rm(
        self,
        path: Any,
        recursive: bool = False,
        batch_size: int | None = None,
        maxdepth: int | None = None,
        **_: Any,
    ) -> None:
        paths = [path] if isinstance(path, str) else list(path)
        room = asyncio.Semaphore(batch_size or self.batch_size)

        async def remove(one: str) -> None:
            async with room:
                try:
                    await self._rm_file(one)
                    return
                except IsADirectoryError:
                    if not recursive:
                        raise
                except (FileNotFoundError, InvalidName):
                    if not has_magic(one):
                        raise
                    for match in await self._expand_path(one, recursive=False, maxdepth=maxdepth):
                        await self._rm_file(match)
                    return
            await listing.remove_tree(*self.share_of(self._strip_protocol(one)), self._strip_protocol(one))

        for start in range(0, len(paths), 1024):
            await asyncio.gather(*(remove(one) for one in paths[start : start + 1024]))

    async def _mv(self, path1: str, path2: str, **_: Any) -> None:
        """Rename on the server, onto a file or into an existing folder; between shares, copy and remove."""
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        if source == target:
            return
        if path2.endswith("/") or await self._isdir(target):
            target = posixpath.join(target, posixpath.basename(source))
        share, name = self.share_of(source)
        other, target_name = self.share_of(target)
        if share is not other:
            await self._copy(source, target, recursive=True, on_error="raise")
            await self._rm(source, recursive=True)
            return
        await share.ensure_folder(posixpath.dirname(target_name), posixpath.dirname(target))
        await share.move(name, target_name, source)

    async def _close(self) -> None:
        """Close all connections; the next call opens new ones."""
        for share in list(self._shares.values()):
            await share.close()

    rmdir = sync_wrapper(_rmdir)
    mv = sync_wrapper(_mv)
    space = sync_wrapper(_space)
    close = sync_wrapper(_close)


def _info(path: str, found: Entry | Opened) -> Info:
    return {
        "name": path,
        "size": 0 if found.is_directory else found.size,
        "type": "directory" if found.is_directory else "file",
        "mtime": found.modified,
        "created": found.created,
    }


def _close_later(loop: asyncio.AbstractEventLoop, shares: dict[str, Share]) -> None:
    async def close() -> None:
        for share in shares.values():
            await share.close()

    if shares and loop.is_running():
        asyncio.run_coroutine_threadsafe(close(), loop)
