"""The picture and, beside it, whose pixel each pixel is: boxes come from what can still be seen of a thing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.drawing.camera import NEAR, Camera, Vector

Colour = tuple[int, int, int]
"""Blue, green, red from 0 to 255."""
Pixels = NDArray[np.uint8]

SUBPIXEL = 4
"""Bits of a pixel's fraction in corner coordinates."""
BACKGROUND = -1
"""Owner of what lies behind everything: it never hides anything."""
OTHER = 0
"""Owner of things without a label, which hide what is behind them."""

LEAST_VISIBLE = 0.25
LEAST_HEIGHT = 1 / 30
LEAST_WIDTH = 1 / 70

cv2.setNumThreads(1)


@dataclass(frozen=True)
class Box:
    """What is visible of one thing, in pixels: right and lower edges are exclusive."""

    owner: int
    x0: int
    y0: int
    x1: int
    y1: int


class Canvas:
    """A picture (``image``, height x width x 3, BGR) and its owners (``owners``, height x width)."""

    def __init__(self, camera: Camera, image: Pixels | None = None) -> None:
        shape = (camera.height, camera.width)
        self.camera = camera
        self.image: Pixels = np.zeros((*shape, 3), np.uint8) if image is None else image
        self.owners: Pixels = np.zeros(shape, np.uint8)
        self._outlines: dict[int, list[NDArray[np.int32]]] = {}

    def face(self, seen: Sequence[Vector], colour: Colour, owner: int) -> None:
        """Fill a flat polygon given by its corners in view space."""
        if min(corner[2] for corner in seen) < NEAR:
            seen = _in_front(seen)
            if len(seen) < 3:
                return
        unit = 1 << SUBPIXEL
        focal = self.camera.focal * unit
        x0, y0 = (self.camera.width - 1) / 2 * unit + 0.5, (self.camera.height - 1) / 2 * unit + 0.5
        corners = [(math.floor(x0 + x * focal / d), math.floor(y0 - y * focal / d)) for x, y, d in seen]
        self.fill(np.array(corners, np.int32), colour, owner)

    def fill(self, corners: NDArray[np.int32], colour: Colour, owner: int) -> None:
        """Fill a polygon given by its corners (n x 2) in fractions of a pixel."""
        cv2.fillPoly(self.image, [corners], colour, cv2.LINE_AA, SUBPIXEL)
        if owner != BACKGROUND:
            cv2.fillPoly(self.owners, [corners], owner, cv2.LINE_8, SUBPIXEL)
        if owner > OTHER:
            self._outlines.setdefault(owner, []).append(corners)

    def darken(self, outline: Sequence[Vector], strength: int) -> None:
        """Lay a shadow with soft edges over the image, where ``outline`` (view space) falls; 0 to 255."""
        if any(corner[2] < NEAR for corner in outline):
            return
        points = [self.camera.pixel(corner) for corner in outline]
        left, upper = (max(0, math.floor(min(p[axis] for p in points))) for axis in (0, 1))
        right, lower = (min(n, math.ceil(max(p[axis] for p in points))) for axis, n in self._limits())
        if left >= right or upper >= lower:
            return
        middle = [sum(p[axis] for p in points) / len(points) for axis in (0, 1)]
        remaining = np.full((lower - upper, right - left), 255, np.uint8)
        steps = 8
        for step in range(steps):
            size = 1 - step * 0.075
            ring = [
                tuple(
                    math.floor((m + (v - m) * size - o) * 16) for v, m, o in zip(p, middle, (left, upper), strict=True)
                )
                for p in points
            ]
            cv2.fillPoly(remaining, [np.array(ring, np.int32)], 255 - strength * (step + 1) // steps, cv2.LINE_AA, 4)
        region = self.image[upper:lower, left:right]
        region[:] = (region.astype(np.uint16) * remaining[:, :, None]) >> 8

    def boxes(self) -> list[Box]:
        """The boxes of the labelled things of which enough can be seen, in the order of their owners."""
        boxes = [self._box(owner, outlines) for owner, outlines in sorted(self._outlines.items())]
        return [box for box in boxes if box]

    def _limits(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (0, self.camera.width), (1, self.camera.height)

    def _box(self, owner: int, outlines: list[NDArray[np.int32]]) -> Box | None:
        unit = 1 << SUBPIXEL
        low = np.min([outline.min(axis=0) for outline in outlines], axis=0) // unit - 1
        high = np.max([outline.max(axis=0) for outline in outlines], axis=0) // unit + 2
        left, upper = max(0, int(low[0])), max(0, int(low[1]))
        seen = self.owners[upper : max(0, int(high[1])), left : max(0, int(high[0]))]
        if not seen.size:
            return None
        visible = cv2.compare(seen, owner, cv2.CMP_EQ)
        whole = np.zeros((int(high[1] - low[1]), int(high[0] - low[0])), np.uint8)
        for outline in outlines:
            cv2.fillPoly(whole, [outline - low.astype(np.int32) * unit], 1, cv2.LINE_8, SUBPIXEL)
        if cv2.countNonZero(visible) < LEAST_VISIBLE * cv2.countNonZero(whole):
            return None
        x, y, width, height = cv2.boundingRect(visible)
        if height < self.camera.height * LEAST_HEIGHT or width < self.camera.height * LEAST_WIDTH:
            return None
        return Box(owner, left + x, upper + y, left + x + width, upper + y + height)


def _in_front(seen: Sequence[Vector]) -> list[Vector]:
    """The part of a polygon that is farther than ``NEAR`` (Sutherland and Hodgman)."""
    kept: list[Vector] = []
    for index, corner in enumerate(seen):
        before = seen[index - 1]
        if (before[2] < NEAR) != (corner[2] < NEAR):
            t = (NEAR - before[2]) / (corner[2] - before[2])
            kept.append((before[0] + t * (corner[0] - before[0]), before[1] + t * (corner[1] - before[1]), NEAR))
        if corner[2] >= NEAR:
            kept.append(corner)
    return kept
