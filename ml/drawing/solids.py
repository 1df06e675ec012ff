"""What things are made of: blocks, extruded outlines, rounded hulls and flat panels, each convex.

A solid paints its visible faces onto a canvas, shaded by the lamp. Things made of several solids paint them from far
to near; :func:`far_to_near` orders parts that planes separate, which is exact where sorting by distance is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import cv2
import numpy as np

from ml.drawing.camera import NEAR, Frame, Vector, dot
from ml.drawing.canvas import SUBPIXEL, Canvas, Colour
from ml.drawing.exact import circle

Part = TypeVar("Part")
Sphere = tuple[float, float, float, float]
"""Centre and radius in metres."""

_RIM = np.array([circle(index / 16) for index in range(16)]) * (1 << SUBPIXEL)


class Solid(Protocol):
    """Anything that can paint itself in a frame."""

    def paint(self, canvas: Canvas, frame: Frame, owner: int) -> None:
        """Paint what the camera sees of it, as pixels of ``owner``."""


def shaded(colour: Colour, factor: float) -> Colour:
    """The colour made darker (below 1) or lighter."""
    b, g, r = colour
    return min(255, int(b * factor)), min(255, int(g * factor)), min(255, int(r * factor))


def lit(colour: Colour, normal: Vector, frame: Frame) -> Colour:
    """The colour of a face with this unit normal under the lamp."""
    return shaded(colour, 0.78 + 0.34 * dot(normal, frame.light))


@dataclass(frozen=True)
class Block:
    """A cuboid between two corners."""

    low: Vector
    high: Vector
    colour: Colour

    def paint(self, canvas: Canvas, frame: Frame, owner: int) -> None:
        (x0, y0, z0), (x1, y1, z1) = self.low, self.high
        (ex, ey, ez), view = frame.eye, frame.view
        if not y0 <= ey <= y1:
            y, sign = (y0, -1.0) if ey < y0 else (y1, 1.0)
            corners = [view((x0, y, z0)), view((x1, y, z0)), view((x1, y, z1)), view((x0, y, z1))]
            canvas.face(corners, lit(self.colour, (0.0, sign, 0.0), frame), owner)
        if not x0 <= ex <= x1:
            x, sign = (x0, -1.0) if ex < x0 else (x1, 1.0)
            corners = [view((x, y0, z0)), view((x, y1, z0)), view((x, y1, z1)), view((x, y0, z1))]
            canvas.face(corners, lit(self.colour, (sign, 0.0, 0.0), frame), owner)
        if not z0 <= ez <= z1:
            z, sign = (z0, -1.0) if ez < z0 else (z1, 1.0)
            corners = [view((x0, y0, z)), view((x1, y0, z)), view((x1, y1, z)), view((x0, y1, z))]
            canvas.face(corners, lit(self.colour, (0.0, 0.0, sign), frame), owner)


@dataclass(frozen=True)
class Prism:
    """A convex outline, counter-clockwise in (x, z) for ``axis`` 1 or (x, y) for ``axis`` 2, extruded along it."""

    outline: tuple[tuple[float, float], ...]
    axis: int
    low: float
    high: float
    colour: Colour
    cap: Colour | None = None

    def paint(self, canvas: Canvas, frame: Frame, owner: int) -> None:
        eye = frame.eye
        across = (eye[0], eye[2] if self.axis == 1 else eye[1])
        near = [frame.view(self._point(corner, self.low)) for corner in self.outline]
        far = [frame.view(self._point(corner, self.high)) for corner in self.outline]
        for index, corner in enumerate(self.outline):
            before = self.outline[index - 1]
            nx, nz = corner[1] - before[1], before[0] - corner[0]
            if nx * (across[0] - corner[0]) + nz * (across[1] - corner[1]) <= 0:
                continue
            length = math.sqrt(nx * nx + nz * nz)
            normal = self._point((nx / length, nz / length), 0.0)
            sides = (near[index - 1], near[index], far[index], far[index - 1])
            canvas.face(sides, lit(self.colour, normal, frame), owner)
        for level, corners, sign in ((self.low, near, -1.0), (self.high, far, 1.0)):
            if (eye[self.axis] - level) * sign > 0:
                canvas.face(corners, lit(self.cap or self.colour, self._point((0.0, 0.0), sign), frame), owner)

    def _point(self, across: tuple[float, float], along: float) -> Vector:
        if self.axis == 1:
            return (across[0], along, across[1])
        return (across[0], across[1], along)


def round_outline(x: float, other: float, radius: float, corners: int = 12) -> tuple[tuple[float, float], ...]:
    """A circle as the outline of a prism."""
    rim = (circle(index / corners) for index in range(corners))
    return tuple((x + radius * c, other + radius * s) for c, s in rim)


@dataclass(frozen=True)
class Hull:
    """Spheres and all between them: a limb, a bar, a head. ``glow`` adds the lamp's side in a lighter colour."""

    spheres: tuple[Sphere, ...]
    colour: Colour
    glow: bool = False

    def paint(self, canvas: Canvas, frame: Frame, owner: int) -> None:
        seen = [(*frame.view((x, y, z)), radius) for x, y, z, radius in self.spheres]
        if any(depth < NEAR for _, _, depth, _ in seen):
            return
        canvas.fill(_outline(canvas, seen), self.colour, owner)
        if self.glow:
            bright = [(x - 0.2 * r, y + 0.25 * r, d, 0.6 * r) for x, y, d, r in seen]
            canvas.fill(_outline(canvas, bright), shaded(self.colour, 1.13), owner)


def bar(start: Vector, end: Vector, radius: float, colour: Colour) -> Hull:
    """A round bar between two points."""
    return Hull(((*start, radius), (*end, radius)), colour)


@dataclass(frozen=True)
class Panel:
    """A flat polygon seen from both sides, of one colour whatever the light."""

    corners: tuple[Vector, ...]
    colour: Colour

    def paint(self, canvas: Canvas, frame: Frame, owner: int) -> None:
        canvas.face([frame.view(corner) for corner in self.corners], self.colour, owner)


def far_to_near(eye: float, parts: Iterable[tuple[float, float, Part]]) -> list[Part]:
    """Parts between planes along an axis (low, high, part), in the order in which they can be painted.

    Exact when the parts do not overlap along the axis: what is on the eye's side of a plane hides what is not.
    """
    placed = sorted(parts, key=lambda part: -max(part[0] - eye, eye - part[1], 0.0))
    return [part for _, _, part in placed]


def paint_all(solids: Iterable[Solid], canvas: Canvas, frame: Frame, owner: int) -> None:
    """Paint solids in the order given."""
    for solid in solids:
        solid.paint(canvas, frame, owner)


def _outline(
    canvas: Canvas, seen: Sequence[tuple[float, float, float, float]]
) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    camera, unit = canvas.camera, 1 << SUBPIXEL
    rims = []
    for x, y, depth, radius in seen:
        u, v = camera.pixel((x, y, depth))
        size = max(0.4, radius * camera.focal / depth)
        rims.append(np.floor(_RIM * size + (u * unit, v * unit)).astype(np.int32))
    hull: np.ndarray[tuple[int, ...], np.dtype[np.int32]] = cv2.convexHull(np.concatenate(rims))
    return hull[:, 0, :]
