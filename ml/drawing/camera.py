"""From metres in the hall to pixels: a pinhole camera and the frames of the things it sees.

The hall's axes are x (into the picture), y (left) and z (up) in metres. View space is right, up and depth in metres
as the camera sees them. Pixels count from the upper left corner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ml.drawing.exact import circle

Vector = tuple[float, float, float]

NEAR = 0.25
LIGHT: Vector = (-0.48, 0.36, 0.8)
"""Direction to the lamp that shades all faces, a unit vector."""


def dot(a: Vector, b: Vector) -> float:
    """The scalar product, summed in this order."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vector, b: Vector) -> Vector:
    """The vector product."""
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def unit(a: Vector) -> Vector:
    """``a`` with length 1."""
    length = math.sqrt(dot(a, a))
    return (a[0] / length, a[1] / length, a[2] / length)


@dataclass(frozen=True)
class Camera:
    """Where the picture is taken from. ``focal`` is in pixels; ``right``, ``up`` and ``forward`` are unit vectors."""

    width: int
    height: int
    focal: float
    position: Vector
    right: Vector
    up: Vector
    forward: Vector

    @classmethod
    def looking(
        cls, size: tuple[int, int], focal: float, position: Vector, target: Vector, roll: float = 0.0
    ) -> Camera:
        """A camera of ``size`` (width, height) pixels at ``position`` that looks at ``target``, tilted by ``roll``
        turns."""
        forward = unit((target[0] - position[0], target[1] - position[1], target[2] - position[2]))
        level = unit(cross(forward, (0.0, 0.0, 1.0)))
        upright = cross(level, forward)
        c, s = circle(roll)
        right = (c * level[0] + s * upright[0], c * level[1] + s * upright[1], c * level[2] + s * upright[2])
        up = (c * upright[0] - s * level[0], c * upright[1] - s * level[1], c * upright[2] - s * level[2])
        return cls(size[0], size[1], focal, position, right, up, forward)

    def pixel(self, seen: Vector) -> tuple[float, float]:
        """Where a point in view space (of positive depth) is seen; whole numbers are the middles of pixels."""
        scale = self.focal / seen[2]
        return (self.width - 1) / 2 + seen[0] * scale, (self.height - 1) / 2 - seen[1] * scale


@dataclass(frozen=True)
class Placement:
    """Where a thing stands and, as the cosine and sine of an angle about the vertical, where its x axis points."""

    x: float
    y: float
    z: float = 0.0
    heading: tuple[float, float] = (1.0, 0.0)


class Frame:
    """A thing's own axes as one camera sees them.

    Attributes:
        eye: the camera's position in the thing's axes.
        light: the direction to the lamp in the thing's axes.
    """

    def __init__(self, camera: Camera, place: Placement) -> None:
        self.camera = camera
        self.place = place
        c, s = place.heading
        at, eye = (place.x, place.y, place.z), camera.position
        offset = (at[0] - eye[0], at[1] - eye[1], at[2] - eye[2])
        self.eye: Vector = (-c * offset[0] - s * offset[1], s * offset[0] - c * offset[1], -offset[2])
        self.light: Vector = (c * LIGHT[0] + s * LIGHT[1], c * LIGHT[1] - s * LIGHT[0], LIGHT[2])
        self._rows = tuple(
            (c * axis[0] + s * axis[1], c * axis[1] - s * axis[0], axis[2], dot(axis, offset))
            for axis in (camera.right, camera.up, camera.forward)
        )

    def view(self, point: Vector) -> Vector:
        """A point of the thing in view space."""
        x, y, z = point
        (a, b, c, d), (e, f, g, h), (i, j, k, m) = self._rows
        return (a * x + b * y + c * z + d, e * x + f * y + g * z + h, i * x + j * y + k * z + m)

    def sees(self, low: Vector, high: Vector) -> bool:
        """Whether a cuboid of the thing may be in the picture; true too often, never false too often."""
        corners = [
            self.view((x, y, z)) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])
        ]
        reach = self.camera.width / 2 / self.camera.focal
        return (
            any(depth > NEAR for _, _, depth in corners)
            and any(x > -reach * depth for x, _, depth in corners)
            and any(x < reach * depth for x, _, depth in corners)
        )

    def depth(self, point: Vector) -> float:
        """How far in front of the camera a point of the thing is."""
        i, j, k, m = self._rows[2]
        return i * point[0] + j * point[1] + k * point[2] + m
