"""Class colours, and boxes with labels on pictures and on video frames.

Everything that shows a class (plots, pictures, videos) takes its colour from :func:`class_colour`. The colours are
those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which people with any kind of colour vision tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import distribution
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from ml.boxes.geometry import Boxes

if TYPE_CHECKING:
    from PIL import ImageFont

Image = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]  # red, green, blue

PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
WHITE: Colour = (255, 255, 255)
INK: Colour = (20, 22, 26)


def class_colour(index: int) -> Colour:
    """The colour of a class, red, green and blue from 0 to 255; the palette repeats after its end."""
    return PALETTE[index % len(PALETTE)]


def hex_colour(colour: Colour) -> str:
    """The colour as Matplotlib and HTML take it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


class Canvas(Protocol):
    """Something to draw on; ``height`` and ``width`` in pixels. Drawing beyond the border is cut off."""

    height: int
    width: int

    def fill(self, x0: int, y0: int, x1: int, y1: int, colour: Colour) -> None:
        """Fill the rectangle from (x0, y0) to, but without, (x1, y1)."""

    def paste(self, x0: int, y0: int, picture: Image) -> None:
        """Put an RGB picture of shape (h, w, 3) with its top left corner at (x0, y0)."""


class RgbCanvas:
    """Draws on an RGB image of shape (height, width, 3), in place."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.height, self.width = image.shape[:2]

    def fill(self, x0: int, y0: int, x1: int, y1: int, colour: Colour) -> None:
        self.image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = colour

    def paste(self, x0: int, y0: int, picture: Image) -> None:
        target = self.image[y0 : y0 + picture.shape[0], x0 : x0 + picture.shape[1]]
        target[:] = picture[: target.shape[0], : target.shape[1]]


def line_width(height: int, width: int) -> int:
    """Thickness of a box's line in pixels, even, so that it is as sharp in a video's halved colour planes."""
    return max(2, 2 * round(max(height, width) / 960))


def draw_boxes(canvas: Canvas, boxes: Boxes, names: Sequence[str]) -> None:
    """Outline each box in its class's colour, with a label of name and confidence; the most confident on top."""
    line = line_width(canvas.height, canvas.width)
    size = max(11, round(max(canvas.height, canvas.width) / 80))
    for index in reversed(range(len(boxes))):
        class_index = int(boxes.classes[index])
        corners = outline(canvas, boxes.xyxy[index], class_colour(class_index), line)
        percent = round(float(boxes.confidence[index]) * 100)
        tag = label(f"{names[class_index]} {percent / 100:.2f}", class_colour(class_index), size)
        _place(canvas, tag, corners[0], corners[1])


def outline(canvas: Canvas, xyxy: npt.NDArray[np.float32], colour: Colour, line: int) -> tuple[int, int, int, int]:
    """Draw a rectangle's border inside the corners, rounded to even pixels; return the corners drawn."""
    x0, y0, x1, y1 = (2 * round(float(value) / 2) for value in xyxy)
    x1, y1 = max(x1, x0 + line), max(y1, y0 + line)
    canvas.fill(x0, y0, x1, y0 + line, colour)
    canvas.fill(x0, y1 - line, x1, y1, colour)
    canvas.fill(x0, y0, x0 + line, y1, colour)
    canvas.fill(x1 - line, y0, x1, y1, colour)
    return x0, y0, x1, y1


@cache
def label(text: str, background: Colour, size: int) -> Image:
    """A picture of ``text`` on a coloured ground, RGB, of even height and width; ``size`` in pixels.

    Labels repeat from frame to frame (a class and two digits), so each is drawn once.
    """
    from PIL import Image as Picture
    from PIL import ImageDraw

    face = font(size)
    left, _, right, _ = face.getbbox(text)
    ascent, descent = face.getmetrics()
    width, height = int(right - left) + size, ascent + descent + 2
    picture = Picture.new("RGB", (width + width % 2, height + height % 2), background)
    light = 0.299 * background[0] + 0.587 * background[1] + 0.114 * background[2]
    ImageDraw.Draw(picture).text((size // 2, 1), text, fill=INK if light > 110 else WHITE, font=face)
    return np.asarray(picture, np.uint8)


def _place(canvas: Canvas, tag: Image, x0: int, y0: int) -> None:
    """Put a label above the corner (x0, y0), or inside the box where the picture ends."""
    height, width = tag.shape[:2]
    y = y0 - height if y0 >= height else y0
    x = min(x0, canvas.width - width)
    canvas.paste(max(x - x % 2, 0), max(y - y % 2, 0), tag)


@cache
def font(size: int, bold: bool = True) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib; ``size`` in pixels."""
    from PIL import ImageFont

    # Found, not imported: that takes a third of a second.
    fonts = distribution("matplotlib").locate_file("matplotlib/mpl-data/fonts/ttf")
    return ImageFont.truetype(str(fonts / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")), size)
