"""Frames as the decoder gives them: one plane of luma, two of colour at half the size (YUV 4:2:0).

The network sees a small copy of them; boxes are drawn on the planes themselves and these are encoded again. A full
frame is thus never converted to RGB and back, which would cost more than decoding it.

The conversions are those of ITU-T H.273, section 8.3 (matrix coefficients).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from ml.boxes.drawing import Colour, Image
from ml.boxes.geometry import Letterbox
from ml.boxes.images import GREY

Planes = tuple[Image, Image, Image]

# Weights of red and blue in luma, by H.273's number of the matrix; 601 where a video does not say.
BT601 = (0.299, 0.114)
LUMA_WEIGHTS = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
FULL_RANGE = 2


@dataclass(frozen=True)
class ColourSpace:
    """How numbers in the planes stand for colours; the fields are H.273's numbers, as FFmpeg passes them on."""

    matrix: int = 2
    range: int = 0
    primaries: int = 2
    transfer: int = 2

    def to_yuv(self) -> npt.NDArray[np.float64]:
        """Affine map from (red, green, blue) to (Y, U, V), all from 0 to 255; shape (3, 4)."""
        return _to_yuv(self)

    def to_rgb(self) -> npt.NDArray[np.float64]:
        """The way back, shape (3, 4)."""
        return _to_rgb(self)


@cache
def _to_yuv(space: ColourSpace) -> npt.NDArray[np.float64]:
    red, blue = LUMA_WEIGHTS.get(space.matrix, BT601)
    luma = np.array([red, 1 - red - blue, blue])
    linear = np.stack([luma, (np.eye(3)[2] - luma) / (2 * (1 - blue)), (np.eye(3)[0] - luma) / (2 * (1 - red))])
    if space.range == FULL_RANGE:
        return np.column_stack([linear, [0, 128, 128]])
    return np.column_stack([linear * np.array([[219], [224], [224]]) / 255, [16, 128, 128]])


@cache
def _to_rgb(space: ColourSpace) -> npt.NDArray[np.float64]:
    forward = _to_yuv(space)
    inverse = np.linalg.inv(forward[:, :3])
    return np.column_stack([inverse, -inverse @ forward[:, 3]])


def small_rgb(planes: Planes, space: ColourSpace, height: int, width: int) -> Image:
    """The frame as an RGB image of shape (height, width, 3).

    Resamples as Ultralytics does (bilinear, no smoothing before), so that a network sees what it saw in training.
    """
    scaled = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in planes]
    return np.asarray(cv2.transform(cv2.merge(scaled), space.to_rgb()), np.uint8)


def place_planes(planes: Planes, space: ColourSpace, fit: Letterbox) -> Image:
    """The frame as a network's input, in its own colours: scaled as by :func:`small_rgb`, where the letterbox puts it.

    Returns:
        Y, U and V of shape (3, height, width), grey around the frame.
    """
    canvas = np.empty((3, *fit.network), np.uint8)
    height, width = fit.scaled
    for target, plane, grey in zip(canvas, planes, _colour((GREY, GREY, GREY), space), strict=True):
        target[: fit.top] = target[fit.top + height :] = grey
        target[:, : fit.left] = target[:, fit.left + width :] = grey
        inside = target[fit.top : fit.top + height, fit.left : fit.left + width]
        inside[:] = cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)
    return canvas


class YuvCanvas:
    """Draws on the planes of a frame, in place. Coordinates are rounded down to even pixels."""

    def __init__(self, planes: Planes, space: ColourSpace) -> None:
        self.planes, self.space = planes, space
        self.height, self.width = planes[0].shape
        self._values: dict[Colour, tuple[int, int, int]] = {}

    def fill(self, x0: int, y0: int, x1: int, y1: int, colour: Colour) -> None:
        x0, y0, x1, y1 = max(x0 // 2, 0), max(y0 // 2, 0), max(x1 // 2, 0), max(y1 // 2, 0)
        values = self._values.get(colour)
        if values is None:
            values = self._values[colour] = _colour(colour, self.space)
        luma, blue, red = self.planes
        luma[2 * y0 : 2 * y1, 2 * x0 : 2 * x1] = values[0]
        blue[y0:y1, x0:x1] = values[1]
        red[y0:y1, x0:x1] = values[2]

    def paste(self, x0: int, y0: int, picture: Image) -> None:
        x, y = x0 // 2, y0 // 2
        tile = _tile(picture.tobytes(), picture.shape, self.space)
        for plane, part, left, top in zip(self.planes, tile, (2 * x, x, x), (2 * y, y, y), strict=True):
            target = plane[top : top + part.shape[0], left : left + part.shape[1]]
            target[:] = part[: target.shape[0], : target.shape[1]]


def _colour(colour: Colour, space: ColourSpace) -> tuple[int, int, int]:
    luma, blue, red = (round(float(value)) for value in space.to_yuv() @ [*colour, 1])
    return luma, blue, red


@cache
def _tile(content: bytes, shape: tuple[int, ...], space: ColourSpace) -> Planes:
    """The planes of a small RGB picture of even sides: labels come back in every frame."""
    picture = np.frombuffer(content, np.uint8).reshape(shape)
    luma, blue, red = cv2.split(np.asarray(cv2.transform(picture, space.to_yuv()), np.uint8))
    half = (shape[1] // 2, shape[0] // 2)
    halves = [cv2.resize(plane, half, interpolation=cv2.INTER_AREA) for plane in (blue, red)]
    return np.asarray(luma), np.asarray(halves[0]), np.asarray(halves[1])
