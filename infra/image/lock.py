"""Which packages of ``requirements.lock`` an image needs: the lock says of each package who needs it (``# via``).

Run by the ``Dockerfile`` with nothing but Python installed, so it imports the standard library alone:
``python3 lock.py requirements.lock pyproject.toml runtime cuda`` prints requirements for pip, hashes included.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CUDA = ("nvidia-", "cuda-", "triton")
"""What torch from PyPI needs, and torch without CUDA does not."""
TORCH = ("torch", "torchvision")
"""What an index of its own has without CUDA, in the same versions with the suffix ``+cpu``."""
BUILD_TOOL = "hatchling"


@dataclass(frozen=True)
class Locked:
    """One entry of a lock.

    Attributes:
        text: requirement, marker and hashes, as pip reads them.
        via: names of those that need it; empty where the lock does not say.
    """

    name: str
    version: str
    text: str
    via: tuple[str, ...]


def read_lock(text: str) -> list[Locked]:
    """Take a lock of ``uv pip compile`` apart, in its order."""
    return [_entry(block) for block in re.findall(r"(?m)^[A-Za-z0-9].*\n(?:[ \t]+.*\n?)*", text)]


def runtime(lock: list[Locked], project: Mapping[str, Any], torch: str) -> list[Locked]:
    """Return what runs: all but what only the extra ``dev`` needs, and for ``cpu`` all but torch and its CUDA.

    Args:
        project: ``pyproject.toml``. torch: ``cuda`` or ``cpu``.
    """
    name, dev = _development(project)
    known = {entry.name for entry in lock}

    def needs(source: str, target: str) -> bool:
        if source == name:
            return target not in dev
        return not (torch == "cpu" and source in TORCH and target.startswith(CUDA))

    # One that is not in the lock itself (the workspace's own package, a file of requirements) needs what it names.
    kept = {
        entry.name
        for entry in lock
        if not entry.via or any(source not in known and needs(source, entry.name) for source in entry.via)
    }
    kept = _closure(lock, kept, needs)
    return [entry for entry in lock if entry.name in kept and not (torch == "cpu" and entry.name in TORCH)]


def build_tools(lock: list[Locked]) -> list[Locked]:
    """Return what builds the workspace's own packages."""
    kept = _closure(lock, {BUILD_TOOL}, lambda source, target: True)
    return [entry for entry in lock if entry.name in kept]


def without_cuda(lock: list[Locked]) -> list[str]:
    """Return the requirements for an index that has torch without CUDA: the lock's versions, without its hashes.

    The lock's hashes are those of other files, the ones on PyPI.
    """
    return [f"{entry.name}=={entry.version}+cpu" for entry in lock if entry.name in TORCH]


def _closure(lock: list[Locked], kept: set[str], needs: Callable[[str, str], bool]) -> set[str]:
    found = set(kept)
    while True:
        more = {
            entry.name
            for entry in lock
            if entry.name not in found and any(source in found and needs(source, entry.name) for source in entry.via)
        }
        if not more:
            return found
        found |= more


def _entry(block: str) -> Locked:
    lines = block.splitlines()
    comments = [line.strip().removeprefix("#").strip() for line in lines if line.lstrip().startswith("#")]
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")).rstrip(" \\\n")
    via = [comment.removeprefix("via").strip() for comment in comments]
    head = re.match(r"([\w.-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text)
    if head is None:
        raise SystemExit(f"error:\n{lines[0]}: is no pinned requirement\n    -> make lock writes the lock anew")
    return Locked(_normal(head[1]), head[2], text, tuple(_normal(name) for name in via if name))


def _development(project: Mapping[str, Any]) -> tuple[str, set[str]]:
    """Return the project's name, and the names of what only its extra ``dev`` asks for."""
    table = project["project"]
    extras = {name: {_normal(item) for item in items} for name, items in table["optional-dependencies"].items()}
    dev = extras.pop("dev")
    return _normal(table["name"]), dev.difference({_normal(item) for item in table["dependencies"]}, *extras.values())


def _normal(requirement: str) -> str:
    """Return the name in a requirement as packages are compared by it."""
    name = re.match(r"[A-Za-z0-9][\w.-]*", requirement)
    return re.sub(r"[-_.]+", "-", name[0] if name else requirement).lower()


def main(lock_file: str, project_file: str, part: str, torch: str = "cuda") -> None:
    """Print one part of a lock: what runs, what builds our own packages, or torch from an index of its own."""
    lock = read_lock(Path(lock_file).read_text(encoding="utf-8"))
    if part == "tools":
        lines = [entry.text for entry in build_tools(lock)]
    elif part == "runtime":
        project = tomllib.loads(Path(project_file).read_text(encoding="utf-8"))
        lines = [entry.text for entry in runtime(lock, project, torch)]
    else:
        lines = without_cuda(lock) if torch == "cpu" else []
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
