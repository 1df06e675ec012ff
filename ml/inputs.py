"""A stage's record must name what it was made from.

DVC reads a stage's recipe, code and data for ``dvc.lock`` and the run cache when the stage has ended. What somebody has
changed meanwhile would stand there as what the result was made from, and nobody could make it again. So each stage
looks itself, before and after, and one whose inputs are others at its end has failed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from configs.problems import Problem, UserError

GRAPH = Path("dvc.yaml")
CODE_SUFFIXES = (".py", ".yaml", ".json")
_SMALL = 1 << 20
_REMEDY = (
    "put it back and run again (a training that has ended is not done twice), or run again as it is: that makes the "
    "result of what is there now"
)
Look = dict[str, object]


@contextmanager
def inputs_held(stage: str, recipe: Path | None) -> Iterator[None]:
    """Do the work of a stage of ``dvc.yaml``; without a recipe it is work by hand, which nothing records.

    Raises:
        UserError: the work has ended well, but what the graph says it depends on is not what it was at the beginning;
            names what is not.
    """
    if recipe is None:
        yield
        return
    before = _look(stage, recipe)
    yield
    after = _look(stage, recipe)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        what = f"changed while stage {stage} ran, and DVC would record what it is now for what was made before"
        raise UserError(Problem(", ".join(_short(changed)), what, _REMEDY))


def _look(stage: str, recipe: Path) -> Look:
    """What tells one state of the inputs from another, by their names; empty where there is no graph."""
    try:
        wanted = yaml.safe_load(GRAPH.read_text(encoding="utf-8"))["stages"][stage]
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return {}
    found: Look = {}
    for dependency in wanted.get("deps", ()):
        for path in _files(Path(dependency)):
            found[path.as_posix()] = _state(path)
    for item in wanted.get("params", ()):
        for keys in item.values() if isinstance(item, dict) else ():
            found.update(_parameters(recipe, keys))
    return found


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(folder, name) for name in names)


def _state(path: Path) -> object:
    """The content of a small text, which may be written anew as it was; of anything else, size and time."""
    try:
        found = path.stat()
        if path.suffix in CODE_SUFFIXES and found.st_size < _SMALL:
            return sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _parameters(recipe: Path, keys: list[str]) -> Look:
    try:
        values: Any = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        values = None
    return {f"{recipe.as_posix()} {key}": _value(values, key) for key in keys}


def _value(values: Any, key: str) -> object:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _short(names: list[str], most: int = 10) -> list[str]:
    """The first of them, and how many more there are."""
    return names if len(names) <= most else [*names[:most], f"{len(names) - most} more"]
