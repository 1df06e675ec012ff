"""Reads a YAML file into a pydantic model and reports every mistake at once, each with its line.

Used for all files under ``configs/``. Duplicate keys, unknown keys, wrong types and values out of range come back as
one :class:`~configs.problems.UserError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from configs.problems import Problem, UserError

Keys = tuple[str | int, ...]
HIDDEN = "hidden"
"""Type of the ``PydanticCustomError`` for a value that must not be repeated, because a secret was written there."""


@dataclass(frozen=True)
class Mistake:
    """What is wrong between several keys of a file; ``keys`` lead to the one to mend."""

    keys: Keys
    what: str
    remedy: str


class Section(BaseModel):
    """A part of a file: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def mistakes(cls, values: Mapping[str, Any]) -> Iterable[Mistake]:
        """Return what is wrong between the keys of a whole file; what a field's own check says is no part of it."""
        return ()


Model = TypeVar("Model", bound=Section)


class _YamlLoader(yaml.SafeLoader):
    """YAML's safe types, but no numbers to the base of 60: ``1:4`` is a text, as it is for DVC."""

    def whole_number(self, node: yaml.ScalarNode) -> Any:
        return node.value if ":" in node.value else self.construct_yaml_int(node)


_YamlLoader.add_constructor("tag:yaml.org,2002:int", _YamlLoader.whole_number)


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
        values = yaml.load(text, Loader=_YamlLoader)  # noqa: S506 - a SafeLoader
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
    problems += [
        Problem(f"{path}:{_line(item.keys, lines)} {_dotted(item.keys)}", item.what, item.remedy)
        for item in model.mistakes(values)
    ]
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
    keys, names = _as_written(detail["loc"], model)
    context = detail.get("ctx", {})
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        keys = (*keys, str(context["discriminator"]).strip("'"))
    where = f"{path}:{_line(keys, lines)} {_dotted(keys)}".rstrip()
    if detail["type"] == "union_tag_not_found":
        return Problem(where, "is missing", f"add `{keys[-1]}:`")
    if detail["type"] == "union_tag_invalid":
        return Problem(where, f"is {context['tag']!r}", f"one of {context['expected_tags']}")
    if detail["type"] == "missing":
        return Problem(where, "is missing", f"add `{keys[-1]}:`")
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(keys[-1]), names, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(sorted(names))}"
        return Problem(where, "is not a known key", hint)
    if detail["type"] == HIDDEN:
        return Problem(where, "holds a secret, which is not repeated here", detail["msg"])
    value = detail["input"]
    shown = repr(value) if len(repr(value)) < 60 else type(value).__name__
    return Problem(where, f"is {shown}", detail["msg"].removeprefix("Value error, "))


def _line(keys: Keys, lines: dict[Keys, int]) -> int:
    """Return the line of a key, or of the nearest one above it that the file has."""
    while keys and keys not in lines:
        keys = keys[:-1]
    return lines.get(keys, 1)


def _as_written(loc: Keys, model: type[BaseModel]) -> tuple[Keys, list[str]]:
    """Return the keys of an error as they stand in the file, and the names that are known beside the last of them.

    Pydantic puts the tag of a discriminated union between the key and those below it.
    """
    written: list[str | int] = []
    beside: dict[str, FieldInfo] = {}
    fields = dict(model.model_fields)
    rest = list(loc)
    while rest:
        key = rest.pop(0)
        written.append(key)
        beside = fields
        field = fields.get(str(key))
        members = _models(field)
        if field is not None and isinstance(field.discriminator, str) and rest:
            tag = rest.pop(0)
            members = [item for item in members if tag in get_args(item.model_fields[field.discriminator].annotation)]
        fields = dict(members[0].model_fields) if members else {}
    return tuple(written), list(beside)


def _models(field: FieldInfo | None) -> list[type[BaseModel]]:
    annotation = field.annotation if field else None
    return [
        item for item in (annotation, *get_args(annotation)) if isinstance(item, type) and issubclass(item, BaseModel)
    ]


def _required(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if field.is_required()]


def _dotted(keys: Keys) -> str:
    return ".".join(str(key) for key in keys)


def _similar_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either"
    names = sorted(item.name for item in path.parent.glob(f"*{path.suffix}"))
    return f"files there: {', '.join(names)}" if names else "that folder holds no such file"
