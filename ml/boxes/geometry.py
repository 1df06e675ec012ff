"""Boxes of one image, how they come out of a YOLOv5 network's raw output, and how they compare with others.

Coordinates are pixels, ``x0, y0, x1, y1`` from the top left corner. The letterbox and the suppression follow
Ultralytics, so that the same weights give the same boxes there and here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

MOST_CANDIDATES = 3000  # suppression compares all pairs: this bounds its memory to 36 MB
MOST_BOXES = 300  # as in Ultralytics


@dataclass(frozen=True)
class Boxes:
    """The boxes of one image, most confident first.

    Attributes:
        xyxy: corners in pixels, shape (n, 4).
        confidence: 0 to 1, shape (n,); 1 for ground truth.
        classes: index of the class, shape (n,).
    """

    xyxy: Floats
    confidence: Floats
    classes: Ints

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, chosen: npt.NDArray[np.bool_] | Ints) -> Boxes:
        """The boxes that a mask of shape (n,) or an array of indices names."""
        return Boxes(self.xyxy[chosen], self.confidence[chosen], self.classes[chosen])

    @classmethod
    def truth(cls, xyxy: npt.ArrayLike, classes: npt.ArrayLike) -> Boxes:
        """Ground truth from corners, shape (n, 4), and class indices, shape (n,)."""
        corners = np.asarray(xyxy, np.float32).reshape(-1, 4)
        return cls(corners, np.ones(len(corners), np.float32), np.asarray(classes, np.int64).reshape(-1))


@dataclass(frozen=True)
class Letterbox:
    """Where an image lies in the network's input: scaled with its aspect ratio kept, centred, grey around it.

    Attributes:
        image: height and width of the image.
        network: height and width of the network's input.
        scaled: height and width of the image in it.
        top, left: where it begins.
    """

    image: tuple[int, int]
    network: tuple[int, int]
    scaled: tuple[int, int]
    top: int
    left: int

    @classmethod
    def fit(cls, image: tuple[int, int], network: tuple[int, int]) -> Letterbox:
        """Place an image of (height, width) in a network's input of (height, width)."""
        scale = min(network[0] / image[0], network[1] / image[1])
        scaled = max(round(image[0] * scale), 1), max(round(image[1] * scale), 1)
        # A centred image with an odd rest has the bigger half below and to the right, as in Ultralytics.
        top, left = (round((outer - inner) / 2 - 0.1) for outer, inner in zip(network, scaled, strict=True))
        return cls(image, network, scaled, top, left)

    def restore(self, xyxy: Floats) -> Floats:
        """Corners in the network's input, shape (n, 4), as corners in the image, cut at its border."""
        height, width = self.image
        gain_y, gain_x = self.scaled[0] / height, self.scaled[1] / width
        shifted = xyxy - np.array([self.left, self.top, self.left, self.top], np.float32)
        in_image = shifted / np.array([gain_x, gain_y, gain_x, gain_y], np.float32)
        limits = np.array([width, height, width, height], np.float32)
        return np.asarray(np.clip(in_image, 0, limits), np.float32)


def network_shape(image: tuple[int, int], imgsz: int, stride: int) -> tuple[int, int]:
    """The smallest input (height, width) in whole strides that holds the image with its longer side at ``imgsz``."""
    scale = imgsz / max(image)
    height, width = (max(math.ceil(max(round(side * scale), 1) / stride), 1) * stride for side in image)
    return height, width


def iou(first: Floats, second: Floats) -> Floats:
    """Intersection over union of every pair: corners of shapes (n, 4) and (m, 4) to shape (n, m)."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(bottom_right - top_left, 0, None), axis=2)
    area_first, area_second = (np.prod(corners[:, 2:] - corners[:, :2], axis=1) for corners in (first, second))
    union = area_first[:, None] + area_second[None, :] - shared
    return np.asarray(shared / np.maximum(union, 1e-9), np.float32)


def decode(raw: Floats, confidence: float, overlap: float) -> Boxes:
    """Boxes out of the raw output of a network for one image.

    Args:
        raw: shape (4 + classes, candidates): centre x, centre y, width, height in pixels of the network's input, then
            a score for each class.
        confidence: candidates whose best score is not above this are dropped.
        overlap: of two boxes of one class with an intersection over union above this, the less confident is dropped.
    """
    scores = raw[4:]
    best = scores.max(axis=0)
    found = np.flatnonzero(best > confidence)
    found = found[np.argsort(-best[found], kind="stable")][:MOST_CANDIDATES]
    centre, half = raw[:2, found].T, raw[2:4, found].T / 2
    candidates = Boxes(
        np.concatenate([centre - half, centre + half], axis=1).astype(np.float32),
        best[found].astype(np.float32),
        scores[:, found].argmax(axis=0).astype(np.int64),
    )
    return candidates[suppress(candidates, overlap)]


def suppress(boxes: Boxes, overlap: float) -> Ints:
    """Indices of the boxes that remain after non-maximum suppression within each class; at most ``MOST_BOXES``.

    Args:
        boxes: most confident first.
        overlap: intersection over union above which the less confident of two boxes is dropped.
    """
    rivals = (iou(boxes.xyxy, boxes.xyxy) > overlap) & (boxes.classes[:, None] == boxes.classes[None, :])
    alive = np.ones(len(boxes), bool)
    kept = []
    for index in range(len(boxes)):
        if alive[index]:
            kept.append(index)
            alive &= ~rivals[index]
            if len(kept) == MOST_BOXES:
                break
    return np.array(kept, np.int64)


def match(found: Boxes, truth: Boxes, least: float) -> tuple[Ints, Ints]:
    """Pair boxes of the same class, best confidence first, each with the free counterpart it overlaps most.

    Args:
        found: most confident first.
        truth: what they are compared with.
        least: least intersection over union of a pair.

    Returns:
        Two arrays of the same length: indices into ``found`` and into ``truth``.
    """
    overlaps = np.where(found.classes[:, None] == truth.classes[None, :], iou(found.xyxy, truth.xyxy), -1.0)
    pairs: list[tuple[int, int]] = []
    for index in range(len(found)):
        if not len(truth):
            break
        partner = int(overlaps[index].argmax())
        if overlaps[index, partner] >= least:
            pairs.append((index, partner))
            overlaps[:, partner] = -1.0
    paired = np.array(pairs, np.int64).reshape(-1, 2)
    return paired[:, 0], paired[:, 1]
