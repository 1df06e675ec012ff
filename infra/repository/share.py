"""The share of a checkout: which one it is, how DVC is told of it, and whether it is there.

``configs/site.yaml`` says which; ``--share`` chooses another for one checkout; an address set by hand with ``dvc remote
modify`` is left alone; ``MLOPS_SHARE`` tells a pod how it reaches the site's share. DVC's remote ``share`` is
configured from that here and nowhere else: its address goes to ``.dvc/config.local``, its password to the environment
of the DVC command that needs it, and to no other place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from configs.problems import Problem, UserError
from configs.site import SITE_FILE, load_site
from configs.storage import STORAGE, MountStorage, SmbStorage, Storage
from infra.password import password_path, read_password
from infra.repository import dvc_config
from infra.repository.dvc import Dvc, ShareError
from infra.repository.share_choice import Record, read_record, write_record
from infra.samba.sentinel import check_mounted

REMOTE = "share"
OPTIONS = ("url", "user", "domain", "encrypt")
"""Options of the remote that are ours to set; others stay as they are."""
ENVIRONMENT = "MLOPS_SHARE"
"""A section ``storage`` as JSON: the share as a pod reaches it, which need not be as the site's machines do."""


class Origin(StrEnum):
    """Who decides which share a checkout uses."""

    SITE = SITE_FILE
    CHOSEN = "chosen for this checkout"
    DVC = "set by hand with dvc"
    POD = "given to this pod"


@dataclass(frozen=True)
class Share:
    """The share of one checkout.

    Attributes:
        root: the checkout. home: its state folder.
        storage: what it is; None where DVC's own configuration says so.
        address: for people and for the tracker, without user or password; empty where there is none.
        remote: name of DVC's remote.
        settings: what :data:`OPTIONS` of it are to be; all others are unset.
        environment: what a DVC process needs to log in. Never in ``repr``, in a log or in a file.
    """

    root: Path
    home: Path
    storage: Storage | None
    origin: Origin
    address: str
    remote: str = REMOTE
    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def check(self) -> None:
        """Return if a mounted share is there; other kinds are found out by using them.

        Raises:
            UserError: it is not mounted.
            ShareError: it is, but does not answer.
        """
        if isinstance(self.storage, MountStorage):
            try:
                check_mounted(self.storage.path, self.storage.sentinel, self.storage.source)
            except OSError as error:
                problem = Problem(str(self.storage.path), f"does not answer: {error.strerror}", "mlops doctor")
                raise ShareError(problem) from None

    def configure(self, dvc: Dvc) -> None:
        """Make DVC's remote in ``dvc``'s checkout (this one, or a worktree of it) this share. As it should be: nothing.

        Raises:
            UserError: DVC does not take it.
        """
        effective = dvc_config.remote(dvc.root, self.remote)
        if "url" not in self.settings or all(effective.get(key) == self.settings.get(key) for key in OPTIONS):
            return
        local = dvc_config.remote(dvc.root, self.remote, dvc_config.LOCAL)
        commands: list[tuple[str, ...]] = []
        if local.get("url") != self.settings["url"]:
            # A section of its own: options that were made for another server, a password among them, go.
            commands.append(("add", "--local", "--force", self.remote, self.settings["url"]))
            local = {"url": self.settings["url"]}
        for key in OPTIONS:
            value = self.settings.get(key)
            if value is not None and local.get(key) != value:
                commands.append(("modify", "--local", self.remote, key, value))
            elif value is None and key in local:
                commands.append(("modify", "--local", "--unset", self.remote, key))
        for command in commands:
            status, lines = dvc.run("remote", *command)
            if status:
                raise UserError(Problem("dvc remote", "\n".join(lines).strip(), "mend .dvc/config.local"))
        if dvc.root == self.root:
            write_record(self.home, replace(read_record(self.home), applied=self.settings))


def open_share(root: Path, home: Path, *, credentials: bool = True) -> Share:
    """Find out which share the checkout ``root`` with the state folder ``home`` uses. Changes nothing.

    Args:
        credentials: look the password up, too; without it the share can be named, but not used.

    Raises:
        UserError: the site file has mistakes, or the password is not where it should be.
    """
    storage, origin = _decided(root, read_record(home))
    if storage is None:
        name = dvc_config.default_remote(root) or REMOTE
        options = dvc_config.remote(root, name)
        settings = {key: options[key] for key in OPTIONS if key in options}
        return Share(root, home, None, origin, _without_account(settings.get("url", "")), name, settings)
    if isinstance(storage, SmbStorage):
        environment = _login(storage, root, home) if credentials else {}
        settings = _smb_settings(storage)
        return Share(root, home, storage, origin, str(storage.place), settings=settings, environment=environment)
    folder = storage.path / storage.folder if isinstance(storage, MountStorage) else storage.path
    settings = {"url": str(dvc_config.absolute(root, folder))}
    return Share(root, home, storage, origin, str(folder), settings=settings)


def _decided(root: Path, record: Record) -> tuple[Storage | None, Origin]:
    if given := os.environ.get(ENVIRONMENT):
        return _given(given), Origin.POD
    local = dvc_config.remote(root, REMOTE, dvc_config.LOCAL)
    by_hand = "url" in local and local["url"] != record.applied.get("url")
    if by_hand or dvc_config.default_remote(root) not in (REMOTE, None):
        return None, Origin.DVC
    if record.chosen is not None:
        return record.chosen, Origin.CHOSEN
    if (root / SITE_FILE).exists():
        return load_site(root / SITE_FILE).storage, Origin.SITE
    return None, Origin.DVC


def _given(text: str) -> Storage:
    try:
        return STORAGE.validate_json(text)
    except ValidationError as error:
        told = "; ".join(str(detail["msg"]) for detail in error.errors())
        raise UserError(Problem(ENVIRONMENT, f"is no section `storage`: {told}", "apply the platform again")) from None


def _smb_settings(storage: SmbStorage) -> dict[str, str]:
    encrypt = None if storage.encrypt is None else str(storage.encrypt).lower()
    settings = {
        "url": str(storage.place),
        "user": storage.account,
        "domain": storage.domain or storage.place.domain,
        "encrypt": encrypt,
    }
    return {key: value for key, value in settings.items() if value is not None}


def _login(storage: SmbStorage, root: Path, home: Path) -> dict[str, str]:
    """Return the variables that log a DVC process in; empty ones take away what this process may have."""
    variables = {"DVC_SMB_USER": storage.account, "DVC_SMB_PASSWORD": "", "DVC_SMB_PASSWORD_FILE": ""}
    what = f"password of {storage.account} at {storage.place.server}"
    password = read_password(
        storage.password, what, root, home, otherwise=", or choose the share again: mlops up --share ..."
    )
    path = password_path(storage.password, root)
    if path is not None:
        variables["DVC_SMB_PASSWORD_FILE"] = str(path)
    else:
        variables["DVC_SMB_PASSWORD"] = password
    return variables


def _without_account(url: str) -> str:
    head, separator, rest_of_url = url.partition("://")
    if not separator:
        return url
    server, slash, path = rest_of_url.partition("/")
    return f"{head}://{server.rpartition('@')[2]}{slash}{path}"
