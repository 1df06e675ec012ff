"""What a machine is asked to do: a command, or a file with its mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Command:
    """A command for root. Secrets go through ``stdin``, never through ``argv``, which every user of a machine can see.

    Attributes:
        stdin: never in ``repr``.
        accepted: exit statuses that mean done.
        timeout_s: seconds after which it counts as hanging.
        explain: from what it said when it failed, what is wrong and what would be right; left out, or where it is of
            no use (None): its own words are shown.
    """

    argv: tuple[str, ...]
    stdin: str = field(default="", repr=False)
    accepted: frozenset[int] = frozenset({0})
    timeout_s: float = 120
    explain: Callable[[str], tuple[str, str] | None] = field(default=lambda said: None, repr=False, compare=False)


@dataclass(frozen=True)
class File:
    """A file of root. ``secret``: its text is shown to nobody.

    Attributes:
        text: never in ``repr``.
        group: of the machine; the owner is root.
        marks: empty files that are made before it, for whoever comes after a kill between it and what follows from it.
    """

    path: PurePosixPath
    text: str = field(repr=False)
    mode: int = 0o644
    secret: bool = False
    group: str = "root"
    marks: tuple[PurePosixPath, ...] = ()


@dataclass(frozen=True)
class Removal:
    """A file of root that must not be there; that it is gone already is no error."""

    path: PurePosixPath


@dataclass(frozen=True)
class Upload:
    """A file of ours, however large, for a machine: mode 0600, of root.

    Attributes:
        local: here. digest: its SHA-256; the file there is whole by it, or not there.
    """

    path: PurePosixPath
    local: Path
    digest: str
