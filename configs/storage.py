"""Section ``storage`` of the site: where the share is and how it is reached."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from configs.loading import HIDDEN, Section
from configs.secret import PasswordReference

SMB_PORT = 445
SHARE_ID = r"^[\w.-]{1,64}$"
"""Of a share's sentinel; the site's own shares have their names."""


@dataclass(frozen=True)
class SmbUrl:
    """An address ``smb://[[domain;]user@]host[:port]/share[/folder]``, taken apart.

    Attributes:
        folder: below the share, without slashes at its ends; may be empty.
    """

    domain: str | None
    user: str | None
    host: str
    port: int
    share: str
    folder: str

    @property
    def server(self) -> str:
        """Return the host as it is written in an address, with the port when it is not 445."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == SMB_PORT else f"{host}:{self.port}"

    def __str__(self) -> str:
        """Return the address without its user."""
        return f"smb://{self.server}/" + "/".join(filter(None, (self.share, self.folder)))


def parse_smb_url(text: str) -> SmbUrl:
    """Take an ``smb://`` address apart.

    Raises:
        ValueError: it is none; the message is what would be right, and never repeats a password.
    """
    form = "write smb://user@host/share/folder"
    if re.search(r"://[^/@]*:[^/@]*@", text):
        raise PydanticCustomError(HIDDEN, "leave the password out of the address: {form}", {"form": form})
    if re.search(r"\s|[?#\\]", text):
        raise ValueError(f"an address has no backslashes, and %20, %3F or %23 for a blank, `?` or `#`: {form}")
    try:
        parts = urlsplit(text)
        host, port, user = parts.hostname, parts.port, parts.username
    except ValueError:
        raise ValueError(f"host or port cannot be read: {form}, the port as in host:445") from None
    if parts.scheme != "smb" or not host:
        raise ValueError(form)
    share, *folders = [name for name in parts.path.split("/") if name] or [""]
    if not share:
        raise ValueError(f"names no share: {form}")
    if {".", ".."} & {share, *folders}:
        raise ValueError(f"`.` and `..` are no folders of a share: {form}")
    domain, _, account = unquote(user or "").rpartition(";")
    return SmbUrl(domain or None, account or None, host, port or SMB_PORT, share, "/".join(folders))


def _checked_url(text: str) -> str:
    parse_smb_url(text)
    return text


def _relative(folder: PurePosixPath) -> PurePosixPath:
    if folder.is_absolute() or ".." in folder.parts:
        raise ValueError("name a folder below the mount point, as `dvc`")
    return folder


def _absolute(path: Path) -> Path:
    path = path.expanduser()
    if not path.is_absolute():
        raise ValueError("a mount point is an absolute path, as /mnt/sambashare")
    return path


class DirectoryStorage(Section):
    """A folder; relative to the checkout, or absolute."""

    kind: Literal["directory"] = "directory"
    path: Path = Field(Path(".mlops/share"), description="the folder; made at the first push")


class MountStorage(Section):
    """A share that the machine has mounted; used only while its sentinel is there."""

    kind: Literal["mount"] = "mount"
    path: Annotated[Path, AfterValidator(_absolute)] = Field(description="the mount point")
    folder: Annotated[PurePosixPath, AfterValidator(_relative)] = Field(
        PurePosixPath("dvc"), description="DVC's folder in the share"
    )
    source: str | None = Field(None, pattern=r"^//[^/\s]+/[^/\s]+$", description="what is mounted, as //host/share")
    sentinel: str = Field(pattern=SHARE_ID, description="the share's id, as its sentinel file says")


class SmbStorage(Section):
    """A Samba share without a mount, through DVC's ``smb://`` remote."""

    kind: Literal["smb"] = "smb"
    url: Annotated[str, AfterValidator(_checked_url)] = Field(description="smb://user@host/share/folder")
    user: str | None = Field(None, min_length=1, description="the account, where the address does not name it")
    domain: str | None = Field(None, min_length=1, description="the account's domain or workgroup")
    encrypt: bool | None = Field(None, description="true: always; false: never; left out: where the server demands it")
    password: PasswordReference

    @model_validator(mode="after")
    def _one_user(self) -> Self:
        named = self.place.user
        if not (named or self.user):
            raise ValueError("names no user: write smb://user@host/share/folder")
        if named and self.user and named != self.user:
            raise ValueError(f"names two users, {named} in the address and {self.user}: keep one")
        return self

    @property
    def account(self) -> str:
        """Return the user's name, wherever it is given."""
        return self.user or self.place.user or ""

    @property
    def place(self) -> SmbUrl:
        """Return the address, taken apart."""
        return parse_smb_url(self.url)


Storage = Annotated[DirectoryStorage | MountStorage | SmbStorage, Field(discriminator="kind")]
STORAGE: TypeAdapter[Storage] = TypeAdapter(Storage)
