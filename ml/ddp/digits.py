"""Draws a small dataset of digits as IDX files, like MNIST: for trying things out where nothing can be downloaded.

python -m ml.ddp.digits digits --train 2000 --test 500
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from ml.ddp.idx import IMAGES, LABELS, write_idx

SIZE = 28
"""Pixels of a side."""


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for split, count, seed in (("train", options.train, options.seed), ("t10k", options.test, options.seed + 1)):
        images, labels = draw(count, seed)
        write_idx(options.folder / f"{split}-{IMAGES}.gz", images)
        write_idx(options.folder / f"{split}-{LABELS}.gz", labels)


def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images (count, 28, 28) and labels (count,), unsigned bytes: digits moved, scaled and slanted at random."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, count, dtype=np.uint8)
    images = np.zeros((count, SIZE, SIZE), np.uint8)
    for image, label in zip(images, labels, strict=True):
        cv2.putText(image, str(label), (5, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 255, 2, cv2.LINE_AA)
        slant, scale = random.uniform(-0.25, 0.25), random.uniform(0.8, 1.1)
        right, down = random.uniform(-2, 2, 2)
        middle = (1 - scale) * SIZE / 2
        moved = np.array([[scale, slant, middle - slant * SIZE / 2 + right], [0, scale, middle + down]])
        image[:] = cv2.warpAffine(image, moved, (SIZE, SIZE))
    return images, labels


if __name__ == "__main__":
    main()
