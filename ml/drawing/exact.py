"""Chance and angles that come out the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Choice = TypeVar("Choice")


class Dice:
    """A stream of chance named by integers: the same key gives the same stream, another key an unrelated one."""

    def __init__(self, *key: int) -> None:
        # The length goes first since numpy takes no notice of zeros at the end.
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((len(key), *key))))

    def between(self, low: float, high: float) -> float:
        """A number from ``low`` up to ``high``."""
        return low + (high - low) * float(self._generator.random())

    def whole(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return int(self._generator.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """Whether something with this probability happens."""
        return float(self._generator.random()) < probability

    def pick(self, choices: Sequence[Choice]) -> Choice:
        """One of the choices, each as likely as the others."""
        return choices[self.whole(0, len(choices) - 1)]

    def grain(self, shape: tuple[int, ...]) -> NDArray[np.int16]:
        """Noise of mean 0 and standard deviation 104, an ``int16`` array of ``shape``."""
        size = math.prod(shape)
        parts = np.frombuffer(self._generator.bytes(2 * size), np.uint8)
        return np.subtract(parts[:size], parts[size:], dtype=np.int16).reshape(shape)


def circle(turn: float) -> tuple[float, float]:
    """Cosine and sine of an angle given in turns (0.25 is a right angle).

    Library sines differ in the last bit between CPUs; this Taylor series (error below 1e-9) does not.
    """
    quarter = math.floor(turn * 4 + 0.5)
    x = (turn - quarter / 4) * math.tau
    q = x * x
    sine = x * (1 - q / 6 * (1 - q / 20 * (1 - q / 42 * (1 - q / 72))))
    cosine = 1 - q / 2 * (1 - q / 12 * (1 - q / 30 * (1 - q / 56 * (1 - q / 90))))
    for _ in range(quarter % 4):
        cosine, sine = -sine, cosine
    return cosine, sine
