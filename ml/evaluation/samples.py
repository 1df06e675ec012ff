"""The images and labels of one split, read without writing anything beside them.

Ultralytics' own dataset class leaves a cache beside the labels and rewrites JPEG files that end early; the data is
tracked, so it must stay as it is. How an image is scaled and padded follows Ultralytics' validation with ``rect``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from configs.problems import Problem, UserError
from ml.boxes.drawing import Image
from ml.boxes.geometry import Boxes, Letterbox
from ml.boxes.images import IMAGE_SUFFIXES, place, read_image, resize


@dataclass(frozen=True)
class Sample:
    """An image file, its size and its ground truth in pixels of the image."""

    path: Path
    size: tuple[int, int]
    truth: Boxes

    def image(self) -> Image:
        """RGB of shape (h, w, 3)."""
        image = read_image(self.path)
        if image is None:
            raise UserError(Problem(str(self.path), "is no image that can be read", "run python -m ml.validate"))
        return image

    def placed(self, fit: Letterbox) -> Image:
        """The image as the network takes it, RGB of the letterbox's ``network`` height and width."""
        return place(resize(self.image(), *fit.scaled), fit)


def read_split(data: Path, split: str, classes: int) -> list[Sample]:
    """All samples of a split in the order of their names. An image without a label file shows nothing.

    Args:
        data: folder in YOLO layout: ``images/<split>``, ``labels/<split>``.
        split: ``train``, ``val`` or ``test``.
        classes: how many there are.

    Raises:
        UserError: there are no images or no boxes, or with every image and label that cannot be read.
    """
    folder = data / "images" / split
    paths = (
        sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES) if folder.is_dir() else []
    )
    if not paths:
        raise UserError(Problem(str(folder), "holds no images", f"the {split} split is what a model is judged on"))
    samples: list[Sample] = []
    problems: list[Problem] = []
    for path in paths:
        image = read_image(path)
        if image is None:
            problems.append(Problem(str(path), "is no image that can be read", "mend or remove it"))
            continue
        size = image.shape[0], image.shape[1]
        label = (data / "labels" / split / path.relative_to(folder)).with_suffix(".txt")
        try:
            samples.append(Sample(path, size, _read_label(label, size, classes)))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    if not any(len(sample.truth) for sample in samples):
        raise UserError(Problem(str(folder), "no image has a box", f"label the {split} split in labels/{split}"))
    return samples


def letterbox(size: tuple[int, int], imgsz: int, stride: int) -> Letterbox:
    """Where an image of (height, width) lies in the network's input: longer side ``imgsz``, padded to whole strides
    with at least half a stride over, as in Ultralytics' validation."""
    scale = imgsz / max(size)
    scaled = min(math.ceil(size[0] * scale), imgsz), min(math.ceil(size[1] * scale), imgsz)
    network = (
        math.ceil(size[0] * scale / stride + 0.5) * stride,
        math.ceil(size[1] * scale / stride + 0.5) * stride,
    )
    top, left = (round((outer - inner) / 2 - 0.1) for outer, inner in zip(network, scaled, strict=True))
    return Letterbox(size, network, scaled, top, left)


def batches(samples: list[Sample], imgsz: int, stride: int, size: int) -> Iterator[list[tuple[Sample, Letterbox]]]:
    """At most ``size`` samples at a time, those with one shape of the network's input together."""
    shapes: dict[tuple[int, int], list[tuple[Sample, Letterbox]]] = {}
    for sample in samples:
        fit = letterbox(sample.size, imgsz, stride)
        shapes.setdefault(fit.network, []).append((sample, fit))
    for _, same in sorted(shapes.items()):
        for start in range(0, len(same), size):
            yield same[start : start + size]


def _read_label(path: Path, size: tuple[int, int], classes: int) -> Boxes:
    """Ground truth from ``class cx cy w h`` lines, normalised, as corners in pixels."""
    rows: list[list[float]] = []
    problems: list[Problem] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [], 1):
        if not line.strip():
            continue
        try:
            row = [float(value) for value in line.split()]
        except ValueError:
            row = []
        if len(row) != 5 or row[0] not in range(classes) or not all(0 <= value <= 1 for value in row[1:]):
            right = f"`class cx cy w h`, class 0 to {classes - 1}, the others 0 to 1"
            problems.append(Problem(f"{path}:{number}", f"is no box: {line.strip()[:60]!r}", right))
            continue
        rows.append(row)
    if problems:
        raise UserError(problems)
    values: npt.NDArray[np.float64] = np.array(rows, np.float64).reshape(-1, 5)
    centre, half = values[:, 1:3], values[:, 3:5] / 2
    corners = np.concatenate([centre - half, centre + half], axis=1) * np.array([size[1], size[0]] * 2)
    return Boxes.truth(corners, values[:, 0])
