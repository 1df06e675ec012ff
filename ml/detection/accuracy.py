"""Detections against the ground truth that may lie beside a video as ``<video>.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from configs.problems import Problem, UserError
from ml.boxes.geometry import Boxes, match

LEAST_IOU = 0.5
FORM = '{"frame": 0, "boxes": [{"class": 0, "xyxy": [x0, y0, x1, y1]}]}'


def read_truth(path: Path, classes: int) -> dict[int, Boxes]:
    """Ground truth by frame number, from one JSON object a line: ``{"frame": 0, "boxes": [{"class", "xyxy"}]}``.

    Raises:
        UserError: with every line that is not of this form, or that names a class the model does not know.
    """
    truth: dict[int, Boxes] = {}
    problems = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            boxes = Boxes.truth([box["xyxy"] for box in values["boxes"]], [box["class"] for box in values["boxes"]])
            frame = int(values["frame"])
        except (ValueError, KeyError, TypeError):
            problems.append(Problem(f"{path}:{number}", "is no ground truth of a frame", f"a line reads {FORM}"))
            continue
        if len(boxes) and not 0 <= boxes.classes.min() <= boxes.classes.max() < classes:
            what = f"names a class outside 0 to {classes - 1}"
            problems.append(Problem(f"{path}:{number}", what, "number the classes as the model does"))
        truth[frame] = boxes
    if problems:
        raise UserError(problems)
    return truth


class Accuracy:
    """Counts right, false and missed boxes, frame by frame, at an intersection over union of ``LEAST_IOU``."""

    def __init__(self, truth: dict[int, Boxes], names: Sequence[str]) -> None:
        self.truth, self.names = truth, names
        self._right, self._found, self._true = (np.zeros(len(names), np.int64) for _ in range(3))

    def add(self, frame: int, found: Boxes) -> None:
        """Compare a frame's boxes with its truth; a frame without truth is not judged."""
        truth = self.truth.get(frame)
        if truth is None:
            return
        right, _ = match(found, truth, LEAST_IOU)
        for total, classes in (
            (self._right, found.classes[right]),
            (self._found, found.classes),
            (self._true, truth.classes),
        ):
            total += np.bincount(classes, minlength=len(self.names))

    def summary(self) -> dict[str, object]:
        """Precision and recall over all classes and for each; null where there is nothing to divide by."""
        figures: dict[str, object] = {"iou": LEAST_IOU, "true_boxes": int(self._true.sum())}
        figures.update(_figures(self._right.sum(), self._found.sum(), self._true.sum()))
        for index, name in enumerate(self.names):
            figures[name] = _figures(self._right[index], self._found[index], self._true[index])
        return figures


def _figures(right: int, found: int, true: int) -> dict[str, float | None]:
    return {
        "precision": round(float(right / found), 4) if found else None,
        "recall": round(float(right / true), 4) if true else None,
    }
