"""What a reader of a layout hands on: images with label texts whose class numbers are already the recipe's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs.problems import Problem


@dataclass
class Item:
    """One image of the source with its label, or a label whose image is missing.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        name: path of the image (or the orphan label) within its split, as the source has it.
        image: the file; None for an orphan label.
        label: bytes of the label file to write; None when the source has none.
    """

    split: str
    name: str
    image: Path | None
    label: bytes | None


@dataclass
class Source:
    """A source as read: its layout's name, its items, and what was left out or changed on the way."""

    layout: str
    items: list[Item] = field(default_factory=list)
    classes: dict[str, str] = field(default_factory=dict)
    boxes: Counter[int] = field(default_factory=Counter)
    polygons: int = 0
    crowds: int = 0
    dropped: int = 0
    notes: list[str] = field(default_factory=list)


class Mapper:
    """From the source's class numbers to the recipe's, by name without regard to case."""

    def __init__(self, names: Mapping[int, str], classes: Sequence[str], rename: Mapping[str, str]) -> None:
        self.names = dict(names)
        self.classes = tuple(classes)
        self._known = {name.casefold(): number for number, name in enumerate(classes)}
        self._rename = {old.casefold(): new for old, new in rename.items()}

    def target(self, number: int) -> int | None:
        """The recipe's number for the source's class ``number``; None when it is to be dropped.

        Raises:
            KeyError: the class is unknown.
        """
        name = self.names[number].strip().casefold()
        name = self._rename.get(name, name).strip().casefold()
        return self._known[name] if name else None

    def check(self, used: Iterable[int], where: str) -> list[Problem]:
        """A problem for each class that boxes use and the recipe does not know, and for each odd ``rename``."""
        known = ", ".join(self.classes)
        problems = []
        names = {name.strip().casefold() for name in self.names.values()}
        for old, new in sorted(self._rename.items()):
            if new and new.strip().casefold() not in self._known:
                problems.append(
                    Problem(f"rename {old}={new}", f"{new} is no class of the recipe", f"known are: {known}")
                )
            if old not in names:
                told = f"the source has no class {old}"
                problems.append(Problem(f"rename {old}", told, f"it has: {', '.join(self.names.values())}"))
        for number in sorted(set(used)):
            try:
                self.target(number)
            except KeyError:
                if self._rename.get(self.names[number].strip().casefold()) is None:
                    told = f"class {self.names[number]!r} has boxes, but the recipe does not know it"
                    remedy = f"known are: {known}; rename it to one of these, or to nothing to leave its boxes out"
                    problems.append(Problem(where, told, remedy))
        return problems

    def told(self, used: Iterable[int]) -> dict[str, str]:
        """Name in the source to name in the recipe, for the classes that boxes use."""
        pairs = {}
        for number in sorted(set(used)):
            target = self.target(number)
            pairs[self.names[number]] = "" if target is None else self.classes[target]
        return pairs


def split_named(word: str) -> str | None:
    """The split that ``word`` names (``valid`` and ``validation`` are ``val``), None for any other word."""
    word = word.lower()
    for split, names in {
        "train": ("train", "training"),
        "val": ("val", "valid", "validation"),
        "test": ("test",),
    }.items():
        if word in names:
            return split
    return None
