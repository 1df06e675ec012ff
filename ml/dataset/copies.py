"""Images that are copies of each other: the same bytes, or the same picture encoded or scaled again.

Near copies are found in two steps. The perceptual hash (DCT, 64 bits) names candidates, at most ``HASH_BITS`` bits
apart. Then the two 64 x 64 grey thumbnails are compared: every cell may differ by at most ``CELL_LEVELS`` of 255
levels, and all cells by ``MEAN_LEVELS`` on average. Encoding again as JPEG of quality 20, or at 0.6 of the size,
changes no cell by more than 7 levels; a fixed camera or a drawn scene with one small thing moved (a seventeenth of
the image's height) changes some by 14 or more, and different scenes some by 80. Mirrored and rotated copies are not
found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ml.dataset.images import Picture

HASH_BITS = 8
CELL_LEVELS = 9
MEAN_LEVELS = 2.0
_BLOCK = 1 << 22

Method = Literal["exact", "near"]


@dataclass(frozen=True)
class Copy:
    """Image ``index`` shows what the earlier image ``of`` shows; ``leak`` when their splits differ."""

    index: int
    of: int
    method: Method
    leak: bool


def find_copies(splits: Sequence[str], pictures: Sequence[Picture | None]) -> list[Copy]:
    """For each image at most one earlier image that it is a copy of.

    A copy in another split goes before one in the same split, the same bytes before a near copy, the first image
    before later ones.

    Args:
        splits: the split of each image; images of one split stand together.
        pictures: the decoded images, None for one that cannot be decoded.
    """
    firsts: dict[str, dict[str, int]] = {}
    for index, (split, picture) in enumerate(zip(splits, pictures, strict=True)):
        if picture is not None:
            firsts.setdefault(picture.digest, {}).setdefault(split, index)
    unique = [pictures[next(iter(where.values()))] for where in firsts.values()]
    near = _near([picture for picture in unique if picture is not None])
    copies = []
    for index, (split, picture) in enumerate(zip(splits, pictures, strict=True)):
        if picture is None:
            continue
        earlier: list[tuple[bool, Method, int]] = []
        for digest in [picture.digest, *near.get(picture.digest, [])]:
            method: Method = "exact" if digest == picture.digest else "near"
            earlier += [(where == split, method, first) for where, first in firsts[digest].items() if first < index]
        if earlier:
            same_split, method, first = min(earlier)
            copies.append(Copy(index, first, method, leak=not same_split))
    return copies


def _near(pictures: Sequence[Picture]) -> dict[str, list[str]]:
    """For each digest the digests of its near copies."""
    count = len(pictures)
    hashes = np.array([picture.phash for picture in pictures], dtype=np.uint64)
    near: dict[str, list[str]] = {}
    rows = max(1, _BLOCK // max(1, count))
    for start in range(0, count, rows):
        distances = np.bitwise_count(hashes[start : start + rows, None] ^ hashes[None, start:])
        for row, column in np.argwhere(distances <= HASH_BITS):
            first, second = pictures[start + int(row)], pictures[start + int(column)]
            if column > row and looks_the_same(first, second):
                near.setdefault(first.digest, []).append(second.digest)
                near.setdefault(second.digest, []).append(first.digest)
    return near


def looks_the_same(first: Picture, second: Picture) -> bool:
    """True when no cell of the two thumbnails differs by more than encoding again explains."""
    difference = np.abs(first.thumbnail.astype(np.int16) - second.thumbnail.astype(np.int16))
    return bool(difference.max() <= CELL_LEVELS and difference.mean() <= MEAN_LEVELS)
