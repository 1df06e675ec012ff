"""Which image goes to which split: copies of one original always go together.

A *group* is all images that come from one original: those that Roboflow names ``NAME.rf.HASH.jpg`` with the same
``NAME`` (its augmented versions), and those with the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from configs.problems import Problem, UserError
from ml.dataset.layout import SPLITS
from ml.importing.items import Item
from ml.importing.summary import Move

_ROBOFLOW = re.compile(r"(?P<name>.+)\.rf\.[0-9A-Za-z]{8,}\.[^.]+")
_SHARE = 0.1


def groups_of(items: Sequence[Item]) -> list[str]:
    """The group of each item: items with equal keys come from one original. Orphan labels are groups of their own."""
    parent: dict[str, str] = {}

    def find(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    keys: list[str] = []
    for item in items:
        if item.image is None:
            keys.append(f"label {item.split}/{item.name}")
            continue
        content = "content " + hashlib.blake2b(item.image.read_bytes(), digest_size=16).hexdigest()
        match = _ROBOFLOW.fullmatch(PurePosixPath(item.name).name)
        keys.append(content)
        if match:
            original = "original " + match["name"]
            parent[find(content)] = find(original)
    return [find(key) for key in keys]


def join_groups(items: Sequence[Item], groups: Sequence[str], regroup: bool) -> list[Move]:
    """Put each group that is in several splits into the earliest of them: train, else val. Returns what was leaking.

    What has been seen in training can judge nothing, and what has chosen a model cannot test it; so the image of the
    later split is the one to move. It is moved, not removed: no image is lost, and the later splits keep only
    originals that are nowhere else. The other way round (moving to val what train has) would put augmented pictures
    into the evaluation.

    Args:
        regroup: False: nothing is moved, the leaks are only listed.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for item, group in zip(items, groups, strict=True):
        splits[group].add(item.split)
    moves = []
    for item, group in zip(items, groups, strict=True):
        first = min(splits[group], key=SPLITS.index)
        if item.split != first:
            moves.append(Move(item.name, group, item.split, first if regroup else item.split))
            item.split = moves[-1].split
    return sorted(moves)


def fill_splits(items: Sequence[Item], groups: Sequence[str], seed: int) -> list[str]:
    """Make the splits that have no image, whole groups at a time; returns what was done, in words.

    No test: half of val. No val, or a val of one group: a tenth of train. The choice depends on the seed and on the
    groups' keys, not on the order of the items.

    Raises:
        UserError: there is no training image, or there are too few groups to make three splits.
    """
    notes = []
    if not _members(items, groups, "train"):
        raise UserError(Problem("train", "the source has no training images", "give a dataset with a train split"))
    tenth = max(1, round(sum(_members(items, groups, "train").values()) * _SHARE))
    had_val = len(_members(items, groups, "val")) > 0
    for split in ("val", "test"):
        if _members(items, groups, split):
            continue
        half = split == "test" and had_val and len(_members(items, groups, "val")) > 1
        source = "val" if half else "train"
        sizes = _members(items, groups, source)
        if len(sizes) < 2:
            told = f"has {len(sizes)} original image{'s' * (len(sizes) != 1)}, too few to make a {split} split"
            raise UserError(Problem(source, told, "give at least three different images"))
        wanted = sum(sizes.values()) // 2 if half else tenth
        taken = _take(sizes, wanted, f"{seed} {split}")
        for item, group in zip(items, groups, strict=True):
            if group in taken and item.split == source:
                item.split = split
        count = sum(sizes[group] for group in taken)
        notes.append(
            f"{split} was missing: {count} images ({len(taken)} originals) were taken from {source}, seed {seed}"
        )
    return notes


def _members(items: Sequence[Item], groups: Sequence[str], split: str) -> Counter[str]:
    """Group to number of images in ``split``."""
    return Counter(
        group for item, group in zip(items, groups, strict=True) if item.split == split and item.image is not None
    )


def _take(sizes: Counter[str], wanted: int, seed: str) -> set[str]:
    """Groups in a seeded order until they hold ``wanted`` images; at least one, and never all."""
    order = sorted(sizes, key=lambda group: hashlib.blake2b(f"{seed} {group}".encode()).digest())
    taken: set[str] = set()
    count = 0
    for group in order[:-1]:
        if count >= wanted:
            break
        taken.add(group)
        count += sizes[group]
    return taken
