"""Detections as tables: one line a picture (JSON), one row a box (CSV), boxes a class over time (CSV)."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from ml.boxes.geometry import Boxes

DETECTIONS_JSONL, DETECTIONS_CSV, COUNTS_CSV = "detections.jsonl", "detections.csv", "counts.csv"


class Tables:
    """Writes the tables of one source while it is detected.

    Args:
        folder: where they are written.
        names: the classes.
        key: what a picture is told apart by besides its number: ``time_s`` or ``image``.
    """

    def __init__(self, folder: Path, names: Sequence[str], key: str) -> None:
        self.names, self.key = names, key
        self._counts: list[npt.NDArray[np.int64]] = []
        self._keys: list[float | str] = []
        self._files = [
            (folder / name).open("w", encoding="utf-8", newline="")
            for name in (DETECTIONS_JSONL, DETECTIONS_CSV, COUNTS_CSV)
        ]
        self._lines, boxes, counts = self._files
        self._box_rows, self._count_rows = (csv.writer(file, lineterminator="\n") for file in (boxes, counts))
        self._box_rows.writerow(["frame", key, "class", "name", "confidence", "x0", "y0", "x1", "y1"])
        self._count_rows.writerow(["frame", key, *names])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Boxes of each class in each picture so far, shape (pictures, classes)."""
        return np.array(self._counts, np.int64).reshape(-1, len(self.names))

    @property
    def keys(self) -> list[float | str]:
        """The time or the name of each picture so far."""
        return self._keys

    def add(self, frame: int, key: float | str, boxes: Boxes) -> None:
        """Write the boxes of picture number ``frame``, which was at ``key`` seconds or in the file ``key``."""
        key = round(key, 6) if isinstance(key, float) else key
        rows = []
        corners = np.round(boxes.xyxy.astype(float), 1).tolist()
        for xyxy, confidence, index in zip(corners, boxes.confidence.tolist(), boxes.classes.tolist(), strict=True):
            name = self.names[index]
            rows.append({"class": index, "name": name, "confidence": round(confidence, 4), "xyxy": xyxy})
            self._box_rows.writerow([frame, key, index, name, f"{confidence:.4f}", *xyxy])
        self._lines.write(json.dumps({"frame": frame, self.key: key, "boxes": rows}) + "\n")
        counts = np.bincount(boxes.classes, minlength=len(self.names))
        self._count_rows.writerow([frame, key, *counts.tolist()])
        self._counts.append(counts)
        self._keys.append(key)
