"""Modes of files that somebody else writes, and leaves for everybody to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from infra.machines.commands import Command
from infra.site.facts import Fact, Facts
from infra.site.step import Change

_PRIVATE = "600 root root"


def mode_fact(path: PurePosixPath) -> Fact:
    """Ask for a file's mode, owner and group."""
    return Fact(("stat", "-c", "%a %U %G", str(path)))


def make_private(path: PurePosixPath) -> tuple[Command, ...]:
    """Return the commands that make a file root's alone."""
    return Command(("chown", "root:root", str(path))), Command(("chmod", "0600", str(path)))


def private_changes(path: PurePosixPath, facts: Facts) -> Iterator[Change]:
    """Yield what makes a file root's alone; one that is not there is somebody else's matter."""
    reading = facts[mode_fact(path)]
    if reading.ok and reading.text.strip() != _PRIVATE:
        yield Change(f"make {path} root's alone", f"is {reading.text.strip()}", make_private(path))
