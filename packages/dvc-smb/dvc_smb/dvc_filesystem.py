"""``smb://`` as DVC sees it: paths, options of a remote, and errors; the work is done by :mod:`dvc_smb.filesystem`."""

from __future__ import annotations

import functools
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from dvc_objects.compat import cached_property
from dvc_objects.fs.base import FileSystem, LinkError

from dvc_smb import location
from dvc_smb.credentials import complete
from dvc_smb.dvc_errors import RemoteError, stop_at_remote_errors
from dvc_smb.dvc_schema import NAMES, REMOTE_CONFIG
from dvc_smb.options import OptionError, Options

if TYPE_CHECKING:
    from dvc_smb.filesystem import SMB

logger = logging.getLogger("dvc.dvc_smb")


class SMBFileSystem(FileSystem):  # type: ignore[misc]
    """A folder in a share. Paths are ``/share/folder/file``; ``config`` is the remote's section and its URL's parts."""

    protocol = "smb"
    REQUIRES: ClassVar[dict[str, str]] = {"dvc-smb": "dvc_smb", "pyspnego": "spnego"}
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
        # Not before a file is asked for: most commands of DVC name the remote without using it.
        from dvc_smb.dvc_reporting import ReportingSMB

        return ReportingSMB(**asdict(self.options), skip_instance_cache=True)

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

    def reflink(self, from_info: str, to_info: str) -> None:
        """Move an upload of ``dvc add --to-remote`` from DVC's temporary name to that of its object.

        DVC asks for a link and otherwise copies the file through this machine; it forgets the temporary file either
        way, so that a move is what it needs.
        """
        name = self.name(from_info)
        if not (name.startswith(".") and name.endswith(".tmp")):
            raise LinkError("reflink", self, from_info)
        self.fs.mv(from_info, to_info)


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
