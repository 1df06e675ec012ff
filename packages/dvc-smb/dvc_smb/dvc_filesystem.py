"""``smb://`` as DVC sees it: paths, options of a remote, and errors; the work is done by :mod:`dvc_smb.filesystem`."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from dvc_objects.compat import cached_property
from dvc_objects.fs.base import FileSystem

from dvc_smb import location
from dvc_smb.credentials import complete
from dvc_smb.dvc_errors import RemoteError, concerns_remote, sentence, stop_at_remote_errors
from dvc_smb.dvc_schema import NAMES, REMOTE_CONFIG
from dvc_smb.filesystem import SMB
from dvc_smb.options import OptionError, Options

logger = logging.getLogger("dvc.dvc_smb")

_READING = ("_info", "_ls", "_find", "_exists", "_isfile", "_isdir", "_size", "_cat_file", "_get_file")
_WRITING = ("_put_file", "_pipe_file", "_mkdir", "_makedirs", "_rm_file", "_rm", "_rmdir", "_cp_file", "_mv")
_TRANSFERS = frozenset({"_get_file", "_put_file"})
#: Seconds during which the files waiting behind a failed one fail as it did, instead of each trying for itself.
_GIVE_UP_FOR = 5.0


class SMBFileSystem(FileSystem):  # type: ignore[misc]
    """A folder in a share. Paths are ``/share/folder/file``; ``config`` is the remote's section and its URL's parts."""

    protocol = "smb"
    REQUIRES: ClassVar[dict[str, str]] = {"dvc-smb": "dvc_smb", "smbprotocol": "smbprotocol"}
    REMOTE_CONFIG = REMOTE_CONFIG
    PARAM_CHECKSUM = "md5"
    _JOBS = Options.jobs

    def __init__(self, fs: SMB | None = None, **config: Any) -> None:
        super().__init__(fs, **config)
        stop_at_remote_errors()

    @cached_property  # type: ignore[untyped-decorator]
    def options(self) -> Options:
        """How to reach the server; with the account, and asked for a password where the remote says so.

        Raises:
            RemoteError: an option is impossible, or nothing says who logs in.
        """
        given = {name: value for name, value in self._config.items() if name in ("host", *NAMES)}
        ask = bool(given.pop("ask_password", False))
        try:
            options = complete(Options(**given), ask=ask)
        except OptionError as error:
            raise RemoteError(str(error)) from None
        if given.get("password"):
            _warn_of_committed_password()
        return options

    @cached_property  # type: ignore[untyped-decorator]
    def fs(self) -> SMB:
        """The filesystem that does the work. It connects when the first file is asked for."""
        options = self.options
        return _Told(
            options.host,
            port=options.port,
            user=options.user,
            password=options.password,
            domain=options.domain,
            timeout=options.timeout,
            encrypt=options.encrypt,
            sign=options.sign,
            auth=options.auth,
            connections=options.connections,
            verify=options.verify,
            guest=options.guest,
            skip_instance_cache=True,
        )

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        try:
            return location.strip(path)
        except OptionError as error:
            raise RemoteError(str(error)) from None

    def unstrip_protocol(self, path: str) -> str:
        """Return the URL of a path, without the account: the same object has the same URL for everybody."""
        host, port = self._config.get("host"), self._config.get("port")
        server = Options(host, port or Options.port) if host else self.fs.options
        return location.url_of(server, path)

    @staticmethod
    def _get_kwargs_from_urls(url: str) -> dict[str, Any]:
        try:
            found = location.parse_url(url)
        except OptionError as error:
            raise RemoteError(str(error)) from None
        parts = {"host": found.host, "port": found.port, "user": found.user, "domain": found.domain}
        return {name: value for name, value in parts.items() if value is not None}

    def normpath(self, path: str) -> str:
        """Return the path without ``.`` and double slashes; ``#`` and ``?`` are characters like others."""
        return str(self.flavour.normpath(path))


class _Told(SMB):
    """Raises :class:`RemoteError` for what concerns the remote as a whole."""

    _given_up: tuple[float, str] | None = None


def _telling(name: str) -> Callable[..., Awaitable[Any]]:
    coroutine = getattr(SMB, name)

    @functools.wraps(coroutine)
    async def told(self: _Told, *args: Any, **kwargs: Any) -> Any:
        if name in _TRANSFERS and self._given_up and time.monotonic() - self._given_up[0] < _GIVE_UP_FOR:
            raise RemoteError(self._given_up[1])
        try:
            return await coroutine(self, *args, **kwargs)
        except OSError as error:
            if not concerns_remote(error, writing=name in _WRITING):
                raise
            if name in _TRANSFERS:
                self._given_up = time.monotonic(), sentence(error)
            raise RemoteError(sentence(error)) from None

    return told


for _name in (*_READING, *_WRITING):
    if hasattr(SMB, _name):
        setattr(_Told, _name, _telling(_name))


@functools.cache
def _warn_of_committed_password() -> None:
    """Say so when the repository's own configuration, which is committed, holds the password of an smb remote."""
    from dvc.config import Config

    config = Config.from_cwd(validate=False)
    if config.dvc_dir is None:
        return
    for name, section in config.read("repo")["remote"].items():
        if section.get("password") and str(section.get("url", "")).lower().startswith(location.PREFIX):
            logger.warning(
                "the password of remote '%s' is in .dvc/config, which is committed: `dvc remote modify --unset %s "
                "password`, then `dvc remote modify --local %s password ...`",
                name,
                name,
                name,
            )
