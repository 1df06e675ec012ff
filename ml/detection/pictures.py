"""Images of a folder as a source, and what is shown of a whole source: a preview sheet and the counts over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ml.boxes.drawing import Image, RgbCanvas, draw_boxes
from ml.boxes.geometry import Boxes, Letterbox
from ml.boxes.images import IMAGE_SUFFIXES, place, read_image, resize
from ml.boxes.sheet import Cell, contact_sheet, save_png
from ml.detection.counts_plot import draw_counts
from ml.detection.pipeline import Picture
from ml.detection.tables import Tables

PREVIEWS = 6
PREVIEW_SIZE = 640  # longer side, pixels


@dataclass(frozen=True)
class Photo:
    """An image file that was read: its number among those that could be, its name, and RGB of shape (h, w, 3)."""

    index: int
    name: str
    image: Image

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def small(self, height: int, width: int) -> Image:
        """The image as RGB of shape (height, width, 3)."""
        return resize(self.image, height, width)

    def network_input(self, fit: Letterbox) -> tuple[Image, None]:
        """The image where the letterbox puts it, as red, green and blue of shape (3, height, width)."""
        return np.ascontiguousarray(place(self.small(*fit.scaled), fit).transpose(2, 0, 1)), None


class PhotoFolder:
    """The images of a folder in the order of their names; iterate it once.

    Attributes:
        paths: all image files.
        unreadable: names of those that could not be read, so far.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        self.unreadable: list[str] = []

    def __iter__(self) -> Iterator[Photo]:
        index = 0
        for path in self.paths:
            image = read_image(path)
            if image is None:
                self.unreadable.append(path.name)
                continue
            yield Photo(index, path.name, image)
            index += 1


class Previews:
    """Keeps a few pictures spread evenly over a source whose length nobody knows beforehand.

    Every ``step``-th is kept; when there are twice as many as wanted, every second is dropped and the step doubled.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._step = 1
        self._seen = 0
        self._kept: list[tuple[Image, Boxes, str]] = []

    def offer(self, picture: Picture, boxes: Boxes, caption: str) -> None:
        """Show the next picture of the source, with its boxes in pixels of the picture."""
        if self._seen % self._step == 0:
            height, width = picture.size
            scale = min(PREVIEW_SIZE / max(height, width), 1.0)
            small = picture.small(max(round(height * scale), 1), max(round(width * scale), 1)).copy()
            scaled = Boxes(boxes.xyxy * np.float32(scale), boxes.confidence, boxes.classes)
            self._kept.append((small, scaled, caption))
            if len(self._kept) == 4 * PREVIEWS:
                self._kept = self._kept[::2]
                self._step *= 2
        self._seen += 1

    def sheet(self, title: str) -> Image:
        """The kept pictures on one sheet; at least one must have been offered."""
        count = min(PREVIEWS, len(self._kept))
        # From the middle of as many equal stretches: neither always the first picture nor always the last.
        chosen = [self._kept[(2 * index + 1) * len(self._kept) // (2 * count)] for index in range(count)]
        for image, boxes, _ in chosen:
            draw_boxes(RgbCanvas(image), boxes, self.names)
        cells = [Cell(image, caption) for image, _, caption in chosen]
        height, width = chosen[0][0].shape[:2]
        return contact_sheet(cells, title, self.names, 3 if width >= height else 6, (height, width))


def plot_counts(tables: Tables, path: Path, title: str) -> None:
    """Draw how many boxes of each class there were, over seconds of a video or images of a folder."""
    counts = tables.counts
    seconds = tables.key == "time_s"
    at = np.array(tables.keys if seconds else range(len(counts)), float)
    save_png(draw_counts(counts, at, tables.names, title, "time (s)" if seconds else "image"), path)
