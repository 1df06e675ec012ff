"""How many boxes of each class there were over a source, as a plot.

Drawn pixel by pixel in the look of :mod:`ml.boxes.plotting`: Matplotlib takes as long to be imported as 60 frames take
to be detected.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ml.boxes.drawing import INK, Colour, Image, class_colour, font
from ml.boxes.sheet import shorten

if TYPE_CHECKING:
    from PIL import ImageDraw

WIDTH, HEIGHT = 1080, 384  # pixels, as is all that follows
LEFT, TOP, RIGHT, BOTTOM = 60, 52, 14, 66  # between the borders of the picture and the axes
LINE = 4
TEXT, HEADING = 17, 22
TICK = 5
TINT = 0.18  # opacity of the area below a line
PAPER: Colour = (250, 250, 248)
GRID: Colour = (228, 228, 224)
EDGE: Colour = (180, 184, 192)
TICK_LABEL: Colour = (96, 96, 108)
LABEL: Colour = (60, 64, 72)


def draw_counts(
    counts: npt.NDArray[np.int64],
    at: npt.NDArray[np.float64],
    names: Sequence[str],
    title: str,
    along: str,
) -> Image:
    """Draw one stepped line a class.

    Args:
        counts: boxes of each class in each picture, shape (pictures, classes), of at least one picture.
        at: where each picture is on the horizontal axis, growing from 0, shape (pictures,).
        names: the classes.
        title: one line above the plot.
        along: what the horizontal axis is.

    Returns:
        RGB image of shape (``HEIGHT``, ``WIDTH``, 3).
    """
    from PIL import Image as Picture
    from PIL import ImageDraw

    end, most = float(at[-1]) or 1.0, max(int(counts.max()) * 1.15, 1.0)
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    columns = {value: LEFT + round(value / end * (width - 1)) for value in ticks(end, 8)}
    rows = {value: TOP + round((1 - value / most) * (height - 1)) for value in ticks(most, 6, least=1)}
    page = np.full((HEIGHT, WIDTH, 3), PAPER, np.uint8)
    axes = page[TOP : TOP + height, LEFT : LEFT + width]
    for column in columns.values():
        page[TOP : TOP + height, column] = GRID
        page[TOP + height : TOP + height + TICK, column] = EDGE
    for row in rows.values():
        page[row, LEFT : LEFT + width] = GRID
        page[row, LEFT - TICK : LEFT] = EDGE
    shown = _shown(at, end, width)
    for index in range(len(names)):
        _line(axes, counts[:, index] / most, shown, class_colour(index))
    page[TOP : TOP + height, LEFT - 1] = EDGE
    page[TOP + height, LEFT - 1 : LEFT + width] = EDGE

    picture = Picture.fromarray(page)
    draw = ImageDraw.Draw(picture)
    face = font(TEXT, bold=False)
    for value, column in columns.items():
        half = draw.textlength(f"{value:g}", font=face) / 2
        at_column = min(column, WIDTH - half)
        draw.text((at_column, TOP + height + TICK + 3), f"{value:g}", fill=TICK_LABEL, font=face, anchor="ma")
    for value, row in rows.items():
        draw.text((LEFT - TICK - 5, row), f"{value:g}", fill=TICK_LABEL, font=face, anchor="rm")
    draw.text((LEFT + width // 2, HEIGHT - 10), along, fill=LABEL, font=face, anchor="ms")
    upright = Picture.new("L", (height, TEXT + 6))
    ImageDraw.Draw(upright).text((height // 2, TEXT), "boxes", fill=255, font=face, anchor="ms")
    picture.paste(LABEL, (10, TOP), upright.rotate(90, expand=True))
    room = _legend(draw, [f"{name} ({total})" for name, total in zip(names, counts.sum(axis=0), strict=True)]) - LEFT
    heading = font(HEADING)
    short = shorten(title, room, lambda text: draw.textlength(text, font=heading))
    draw.text((LEFT, TOP - 18), short, fill=INK, font=heading, anchor="ls")
    return np.asarray(picture, np.uint8)


def ticks(end: float, most: int, least: float = 0.0) -> list[float]:
    """Round numbers from 0 to ``end``, evenly spaced by 1, 2 or 5 times a power of ten, at most ``most`` steps.

    Args:
        least: the least distance of two.
    """
    unit = 10.0 ** math.floor(math.log10(end / most))
    steps = (max(factor * unit, least) for factor in (1, 2, 5, 10))
    step = next(step for step in steps if end / step <= most)
    return [round(index * step, 12) for index in range(math.floor(end / step + 1e-9) + 1)]


def _shown(at: npt.NDArray[np.float64], end: float, width: int) -> npt.NDArray[np.int64]:
    """The picture shown where each pixel column begins, and one more; shape (width + 1,)."""
    edges = np.linspace(0, end, width + 1)
    return np.clip(np.searchsorted(at, edges, side="right") - 1, 0, len(at) - 1)


def _line(axes: Image, shares: npt.NDArray[np.float64], shown: npt.NDArray[np.int64], colour: Colour) -> None:
    """Draw a class into the axes: ``shares`` of their height, one a picture."""
    height, width = axes.shape[:2]
    spans = [shares[first : last + 1] for first, last in itertools.pairwise(shown)]
    top = (height - 1) * (1 - np.array([span.max() for span in spans]))
    low = (height - 1) * (1 - np.array([span.min() for span in spans]))
    rows = np.arange(height)[:, None]
    below = rows >= top.round()
    tinted = axes * (1 - TINT) + np.array(colour) * TINT
    axes[below] = tinted.round().astype(np.uint8)[below]
    # As thick where it rises as where it runs.
    reach = np.arange(-(LINE // 2), LINE - LINE // 2)
    near = np.clip(np.arange(width)[:, None] + reach, 0, width - 1)
    drawn = (rows >= top[near].min(axis=1).round() - LINE // 2) & (rows < low[near].max(axis=1).round() + LINE // 2)
    axes[drawn] = colour


def _legend(draw: ImageDraw.ImageDraw, entries: Sequence[str]) -> float:
    """Write the classes at the right above the axes; return where they begin."""
    face = font(TEXT, bold=False)
    right: float = WIDTH - RIGHT
    for index in reversed(range(len(entries))):
        right -= draw.textlength(entries[index], font=face)
        draw.text((right, TOP - 19), entries[index], fill=INK, font=face, anchor="ls")
        right -= 50
        draw.rectangle((right, TOP - 27, right + 37, TOP - 27 + LINE - 1), fill=class_colour(index))
        right -= 32
    return right
