"""Many small pictures on one sheet, each with a caption, under a title with the colours of the classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ml.boxes.drawing import INK, Colour, Image, RgbCanvas, class_colour, font

PAPER: Colour = (250, 250, 248)
MUTED: Colour = (96, 100, 108)
GAP = 12
CAPTION = 24
TITLE = 56


@dataclass(frozen=True)
class Cell:
    """A picture, RGB of shape (h, w, 3), and what is written below it."""

    image: Image
    caption: str


def contact_sheet(
    cells: Sequence[Cell], title: str, names: Sequence[str], columns: int, cell: tuple[int, int], extra: str = ""
) -> Image:
    """Lay the cells out in rows, each picture shrunk or grown to fit into ``cell`` (height, width).

    Args:
        cells: at least one.
        title: one line above them.
        names: the classes, shown with their colours at the right of the title.
        columns: cells a row at most.
        extra: one more remark at the end of the title's line.

    Returns:
        RGB image.
    """
    columns = min(columns, len(cells))
    rows = math.ceil(len(cells) / columns)
    height, width = cell
    sheet = np.full(
        (TITLE + rows * (height + CAPTION + GAP), max(columns * (width + GAP) + GAP, 640), 3), PAPER, np.uint8
    )
    for index, item in enumerate(cells):
        row, column = divmod(index, columns)
        top, left = TITLE + row * (height + CAPTION + GAP), GAP + column * (width + GAP)
        picture = _fit(item.image, height, width)
        y, x = top + (height - picture.shape[0]) // 2, left + (width - picture.shape[1]) // 2
        sheet[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return _write(sheet, cells, title, names, columns, cell, extra)


def save_jpeg(image: Image, path: Path) -> None:
    """Write an RGB image as JPEG."""
    done, content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    if not done:
        raise ValueError(f"{path}: an image of shape {image.shape} cannot be stored as JPEG")
    path.write_bytes(content.tobytes())


def save_png(image: Image, path: Path) -> None:
    """Write an RGB image as PNG."""
    done, content = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"{path}: an image of shape {image.shape} cannot be stored as PNG")
    path.write_bytes(content.tobytes())


def shrink(image: Image, longest: int) -> tuple[Image, float]:
    """The image with its longer side at most ``longest`` pixels, and the factor by which it was scaled."""
    scale = min(longest / max(image.shape[:2]), 1.0)
    if scale == 1.0:
        return image, scale
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def shorten(text: str, width: float, measure: Callable[[str], float]) -> str:
    """Return ``text``, its middle left out where it is wider than ``width``: names of exported files are long.

    Beginning and end stay: the name, and what was found.
    """
    if measure(text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        tail = kept // 2
        shortened = f"{text[: kept - tail]}…{text[len(text) - tail :]}"
        if measure(shortened) <= width:
            return shortened
    return ""


def _fit(image: Image, height: int, width: int) -> Image:
    scale = min(height / image.shape[0], width / image.shape[1])
    if scale == 1:
        return image
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def _write(
    sheet: Image,
    cells: Sequence[Cell],
    title: str,
    names: Sequence[str],
    columns: int,
    cell: tuple[int, int],
    extra: str,
) -> Image:
    from PIL import Image as Picture
    from PIL import ImageDraw

    page = Picture.fromarray(sheet)
    draw = ImageDraw.Draw(page)
    draw.text((GAP, 14), title, fill=INK, font=font(20))
    right = sheet.shape[1] - GAP
    if extra:
        right -= round(draw.textlength(extra, font=font(14, bold=False)))
        draw.text((right, 19), extra, fill=MUTED, font=font(14, bold=False))
        right -= 2 * GAP
    swatches: list[tuple[int, int]] = []
    for index in reversed(range(len(names))):
        right -= round(draw.textlength(names[index], font=font(14, bold=False)))
        draw.text((right, 19), names[index], fill=INK, font=font(14, bold=False))
        right -= 20
        swatches.append((right, index))
        right -= 2 * GAP
    height, width = cell
    small = font(13, bold=False)
    for index, item in enumerate(cells):
        row, column = divmod(index, columns)
        y = TITLE + row * (height + CAPTION + GAP) + height + 4
        caption = shorten(item.caption, width, lambda text: draw.textlength(text, font=small))
        draw.text((GAP + column * (width + GAP), y), caption, fill=MUTED, font=small)
    finished = np.array(page, np.uint8)
    canvas = RgbCanvas(finished)
    for left, index in swatches:
        canvas.fill(left, 21, left + 14, 35, class_colour(index))
    return finished
