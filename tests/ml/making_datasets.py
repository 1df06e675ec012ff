"""Small real datasets for tests, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ml.dataset import write_dataset_yaml

CLASSES = ("forklift", "person")
BOTH = "0 0.500000 0.500000 0.250000 0.250000\n1 0.250000 0.375000 0.125000 0.250000\n"


def scene(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A picture of its own for each seed: smooth patches of colour, so that encoding changes it little."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def save(seed: int, path: Path, quality: int = 90) -> Path:
    """Write scene ``seed`` to ``path`` in the format of its extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scene(seed).save(path, quality=quality)
    return path


def add(root: Path, split: str, name: str, seed: int, label: str | None = BOTH) -> Path:
    """Add an image and its label (none for None) to a dataset in this project's layout."""
    image = save(seed, root / "images" / split / name)
    text = root / "labels" / split / Path(name).with_suffix(".txt")
    text.parent.mkdir(parents=True, exist_ok=True)
    if label is not None:
        text.write_text(label, encoding="utf-8")
    return image


def sound(root: Path, train: int = 4) -> Path:
    """A dataset without a fault: ``train`` training images, two for validation and two for test."""
    for number in range(train):
        add(root, "train", f"t{number}.jpg", number)
    for number in range(2):
        add(root, "val", f"v{number}.png", 100 + number)
        add(root, "test", f"e{number}.jpg", 200 + number)
    write_dataset_yaml(root, CLASSES)
    return root
