"""Reading DVC's configuration, as DVC reads it: importing DVC for it would take a third of a second."""

from __future__ import annotations

import os
from pathlib import Path

from configobj import ConfigObj, ConfigObjError

from configs.problems import Problem, UserError

BOTH = ("config", "config.local")
LOCAL = ("config.local",)


def section(root: Path, name: str, files: tuple[str, ...] = BOTH) -> dict[str, str]:
    """Return a section of the checkout's configuration; what a later file says replaces what an earlier one does.

    Raises:
        UserError: a file cannot be read.
    """
    found: dict[str, str] = {}
    for file in files:
        path = root / ".dvc" / file
        try:
            values = ConfigObj(str(path), encoding="utf-8").get(name, {})
        except (OSError, ConfigObjError, UnicodeDecodeError) as error:
            raise UserError(Problem(str(path), f"cannot be read: {error}", "mend it, or git checkout it")) from None
        found |= {str(key).lower(): str(value) for key, value in values.items()}
    return found


def default_remote(root: Path) -> str | None:
    """Return the name of the remote that commands use which name none."""
    return section(root, "core").get("remote")


def remote(root: Path, name: str, files: tuple[str, ...] = BOTH) -> dict[str, str]:
    """Return the options of a remote, with a folder as an absolute path; none where there is no such remote."""
    options = section(root, f'remote "{name}"', files)
    if "url" in options and "://" not in options["url"]:
        options["url"] = str(absolute(root / ".dvc", options["url"]))
    return options


def cache_folder(root: Path) -> Path:
    """Return where the checkout's DVC keeps its files."""
    return absolute(root / ".dvc", section(root, "cache").get("dir", "cache"))


def absolute(folder: Path, path: str | Path) -> Path:
    """Return ``path`` as seen from ``folder``. Links stay: one is what a person named, and may lead elsewhere later."""
    return Path(os.path.normpath(folder / Path(path).expanduser()))
