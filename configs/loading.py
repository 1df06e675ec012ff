"""Reads a YAML file into a pydantic model and reports every mistake at once, each with its line.

Used for all files under ``configs/``. Duplicate keys, unknown keys, wrong types and values out of range come back as
one :class:`~configs.problems.UserError`.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from configs.problems import Problem, UserError

Model = TypeVar("Model", bound=BaseModel)
Keys = tuple[str | int, ...]


def load_model(path: str | Path, model: type[Model]) -> Model:
    """Read ``path`` as ``model``.

    Raises:
        UserError: the file is missing, is no YAML, or does not fit the model; lists every problem.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(Problem(str(path), "there is no such file", _similar_files(path))) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(Problem(str(path), f"cannot be read: {error}", "give a readable UTF-8 file")) from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(Problem(f"{path}:{line}", f"is no valid YAML: {error.problem}", "mend the syntax")) from None
    if not isinstance(values, dict):
        raise UserError(Problem(str(path), "holds no keys", f"give at least: {', '.join(_required(model))}"))
    lines: dict[Keys, int] = {}
    problems = _walk(root, (), lines, path)
    try:
        result = model.model_validate(values)
    except ValidationError as error:
        problems += [_problem(detail, lines, path, model) for detail in error.errors()]
    else:
        if not problems:
            return result
    raise UserError(problems)


def _walk(node: yaml.Node | None, keys: Keys, lines: dict[Keys, int], path: Path) -> list[Problem]:
    """Note the line of every key below ``node``; return the keys that are given twice."""
    problems: list[Problem] = []
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in seen:
                where = f"{path}:{line} {_dotted((*keys, key))}"
                problems.append(Problem(where, f"is given twice, first in line {seen[key]}", "keep one of the two"))
            seen[key] = line
            lines[(*keys, key)] = line
            problems += _walk(value_node, (*keys, key), lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*keys, index)] = item.start_mark.line + 1
            problems += _walk(item, (*keys, index), lines, path)
    return problems


def _problem(detail: ErrorDetails, lines: dict[Keys, int], path: Path, model: type[BaseModel]) -> Problem:
    keys: Keys = detail["loc"]
    known = keys
    while known and known not in lines:
        known = known[:-1]
    where = f"{path}:{lines.get(known, 1)} {_dotted(keys)}".rstrip()
    if detail["type"] == "missing":
        return Problem(where, "is missing", f"add `{keys[-1]}:`")
    if detail["type"] == "extra_forbidden":
        names = list(_fields_at(model, keys[:-1]))
        near = difflib.get_close_matches(str(keys[-1]), names, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(sorted(names))}"
        return Problem(where, "is not a known key", hint)
    value = detail["input"]
    shown = repr(value) if len(repr(value)) < 60 else type(value).__name__
    return Problem(where, f"is {shown}", detail["msg"].removeprefix("Value error, "))


def _fields_at(model: type[BaseModel], keys: Keys) -> dict[str, Any]:
    fields: dict[str, Any] = dict(model.model_fields)
    for key in keys:
        annotation = getattr(fields.get(str(key)), "annotation", None)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return {}
        fields = dict(annotation.model_fields)
    return fields


def _required(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if field.is_required()]


def _dotted(keys: Keys) -> str:
    return ".".join(str(key) for key in keys)


def _similar_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either"
    names = sorted(item.name for item in path.parent.glob(f"*{path.suffix}"))
    return f"files there: {', '.join(names)}" if names else "that folder holds no such file"
