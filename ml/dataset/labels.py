"""YOLO label files: one line ``class cx cy width height`` a box, as shares of the image's size.

Reading never raises for what a file says: every line that is no box becomes a fault with its number. Lines are read
as Ultralytics reads them (separated by any white space, blank lines skipped), but a line that it would drop, or that
would make it drop the whole image without a word, is named.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, order=True)
class Box:
    """A box: class number, centre, width and height as shares of the image's width and height."""

    class_id: int
    cx: float
    cy: float
    w: float
    h: float

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom as shares."""
        return self.cx - self.w / 2, self.cy - self.h / 2, self.cx + self.w / 2, self.cy + self.h / 2


@dataclass(frozen=True)
class LineFault:
    """What is wrong with one line: its number from 1, a key of ``ml.dataset.faults.KINDS``, the reason."""

    line: int
    kind: str
    reason: str


@dataclass(frozen=True)
class Labels:
    """What a label file says: the sound boxes, the line of each, and the faults of the other lines."""

    boxes: tuple[Box, ...] = ()
    lines: tuple[int, ...] = ()
    faults: tuple[LineFault, ...] = ()


def parse_labels(text: str, classes: int) -> Labels:
    """Read a label file's text.

    Args:
        text: any text.
        classes: how many classes there are; numbers from 0 to ``classes - 1`` are known.
    """
    boxes: list[Box] = []
    lines: list[int] = []
    faults: list[LineFault] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        fault = _fault(words, classes)
        if fault is None:
            values = [float(word) for word in words]
            boxes.append(Box(int(values[0]), *values[1:]))
            lines.append(number)
        else:
            faults.append(LineFault(number, *fault))
    return Labels(tuple(boxes), tuple(lines), tuple(faults))


def format_box(box: Box) -> str:
    """The line of ``box`` without its end; six decimals are 0.004 pixels in an image 4,000 pixels wide."""
    return f"{box.class_id} {box.cx:.6f} {box.cy:.6f} {box.w:.6f} {box.h:.6f}"


def is_polygon(words: list[str]) -> bool:
    """True for ``class x1 y1 x2 y2 x3 y3 ...``: a class and at least three points."""
    return len(words) >= 7 and len(words) % 2 == 1


def number(word: str) -> float | None:
    """The finite number that ``word`` writes, None for anything else (``nan``, ``1_0``, a word)."""
    if not NUMBER.fullmatch(word):
        return None
    value = float(word)
    return value if math.isfinite(value) else None


def class_number(word: str) -> int | None:
    """The class that ``word`` writes: a whole number, also as ``0.0`` as some tools do; None for anything else."""
    value = number(word)
    return int(value) if value is not None and value.is_integer() else None


def _fault(words: list[str], classes: int) -> tuple[str, str] | None:
    if words[0].startswith("\ufeff"):
        return "label-encoding", "starts with a byte order mark"
    if is_polygon(words):
        return "label-polygon", f"is a polygon of {len(words) // 2} points, not a box"
    if len(words) != 5:
        return "label-columns", f"has {len(words)} column{'s' * (len(words) != 1)}, not 5"
    wrong = [word for word in words if number(word) is None]
    if wrong:
        return "label-number", f"{_quoted(wrong[0])} is not a finite number"
    class_id = class_number(words[0])
    if class_id is None or not 0 <= class_id < classes:
        return "label-class", f"class {_quoted(words[0])} is unknown, the classes are 0 to {classes - 1}"
    values = dict(zip(("cx", "cy", "width", "height"), map(float, words[1:]), strict=True))
    outside = [f"{name} is {value:g}" for name, value in values.items() if not 0 <= value <= 1]
    if outside:
        return "label-range", f"{', '.join(outside)}, outside 0 to 1"
    if values["width"] == 0 or values["height"] == 0:
        return "box-zero", f"the box is {values['width']:g} x {values['height']:g}: it has no area"
    return None


def _quoted(word: str) -> str:
    return repr(word if len(word) <= 24 else word[:21] + "...")
