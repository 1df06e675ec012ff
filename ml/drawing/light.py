"""How the camera takes the picture: uneven light, tint, soft focus and grain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ml.drawing.canvas import Pixels
from ml.drawing.exact import Dice

FULL = 128
"""The value of a light map that leaves a pixel as it is."""


@dataclass(frozen=True)
class Light:
    """Light of one picture.

    Attributes:
        level: of the whole picture, 1 leaves it as painted.
        slope: change of light from the middle to the right and lower edge.
        pool: a lamp's pool: position from -1 to 1, size and strength.
        tint: factors of blue, green and red.
        grain: standard deviation of the noise in grey levels.
        soft: times that the picture is smoothed over its neighbouring pixels.
    """

    level: float
    slope: tuple[float, float]
    pool: tuple[float, float, float, float]
    tint: tuple[float, float, float]
    grain: float
    soft: int

    @classmethod
    def any(cls, dice: Dice) -> Light:
        """Light as chance will have it: mostly good, at times dim, tinted, noisy or out of focus."""
        warmth, green = dice.between(-0.09, 0.09), dice.between(-0.03, 0.03)
        return cls(
            level=dice.between(0.72, 1.2) if dice.chance(0.88) else dice.between(0.45, 0.72),
            slope=(dice.between(-0.22, 0.22), dice.between(-0.1, 0.2)),
            pool=(dice.between(-1, 1), dice.between(-1, 1), dice.between(0.15, 0.6), dice.between(0.0, 0.4)),
            tint=(1 - warmth, 1 + green, 1 + warmth),
            grain=dice.between(1.0, 6.0),
            soft=dice.pick((0, 0, 0, 0, 1, 1, 2)),
        )

    def map(self, height: int, width: int) -> Pixels:
        """The factor of each pixel in 1/128, ``uint8`` of height x width x 3 (the same for all colours)."""
        x = (np.arange(width, dtype=np.float32) * 2 / width - 1)[None, :]
        y = (np.arange(height, dtype=np.float32) * 2 / height - 1)[:, None]
        px, py, size, strength = self.pool
        pool = strength / (1.0 + ((x - px) * (x - px) + (y - py) * (y - py)) / (size * size))
        column = self.slope[0] * x - 0.09 * x * x
        row = self.slope[1] * y - 0.09 * y * y
        light = (pool + column + (row + 1.0)) * (self.level * FULL)
        grey = np.minimum(light, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)

    def take(self, image: Pixels, dice: Dice) -> Pixels:
        """The picture of the painted ``image``."""
        picture = self.tinted(illuminated(image, self.map(*image.shape[:2])))
        for _ in range(self.soft):
            picture = _smooth(picture)
        return grained(picture, self.grain, dice)

    def tinted(self, image: Pixels) -> Pixels:
        """``image`` in the light's colour."""
        table = np.array([[min(255, math.floor(value * tint)) for tint in self.tint] for value in range(256)], np.uint8)
        result: Pixels = cv2.LUT(image, table[None])
        return result


def illuminated(image: Pixels, light: Pixels) -> Pixels:
    """``image`` under a light map. Exact in floats: products have 16 bits and the scale is a power of two."""
    result: Pixels = cv2.multiply(image, light, scale=1 / FULL)
    return result


def grained(image: Pixels, deviation: float, dice: Dice) -> Pixels:
    """``image`` with noise of this standard deviation in grey levels."""
    grain = dice.grain(image.shape)
    grain *= math.floor(deviation * 128 / 104)
    grain >>= 7
    grain += image
    return np.clip(grain, 0, 255).astype(np.uint8)


def _smooth(image: Pixels) -> Pixels:
    """Weights 1, 2, 1 along both axes, in integers; the outermost pixels stay."""
    wide = image.astype(np.uint16)
    wide[1:-1] = wide[:-2] + 2 * wide[1:-1] + wide[2:] + 2 >> 2
    wide[:, 1:-1] = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:] + 2 >> 2
    return wide.astype(np.uint8)
