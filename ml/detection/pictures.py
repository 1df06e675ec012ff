"""Images of a folder as a source, and what is shown of a whole source: a preview sheet and the counts over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ml.boxes.drawing import Image, RgbCanvas, class_colour, draw_boxes, hex_colour
from ml.boxes.geometry import Boxes
from ml.boxes.images import IMAGE_SUFFIXES, read_image, resize
from ml.boxes.plotting import figure
from ml.boxes.sheet import Cell, contact_sheet
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
        self._cells: list[Cell] = []

    def offer(self, picture: Picture, boxes: Boxes, caption: str) -> None:
        """Show the next picture of the source, with its boxes in pixels of the picture."""
        if self._seen % self._step == 0:
            height, width = picture.size
            scale = min(PREVIEW_SIZE / max(height, width), 1.0)
            small = picture.small(max(round(height * scale), 1), max(round(width * scale), 1)).copy()
            scaled = Boxes(boxes.xyxy * np.float32(scale), boxes.confidence, boxes.classes)
            draw_boxes(RgbCanvas(small), scaled, self.names)
            self._cells.append(Cell(small, caption))
            if len(self._cells) == 4 * PREVIEWS:
                self._cells = self._cells[::2]
                self._step *= 2
        self._seen += 1

    def sheet(self, title: str) -> Image:
        """The kept pictures on one sheet; at least one must have been offered."""
        count = min(PREVIEWS, len(self._cells))
        # From the middle of as many equal stretches: neither always the first picture nor always the last.
        chosen = [self._cells[(2 * index + 1) * len(self._cells) // (2 * count)] for index in range(count)]
        height, width = chosen[0].image.shape[:2]
        return contact_sheet(chosen, title, self.names, 3 if width >= height else 6, (height, width))


def plot_counts(tables: Tables, path: Path, title: str) -> None:
    """Draw how many boxes of each class there were, over seconds of a video or images of a folder."""
    counts = tables.counts
    seconds = tables.key == "time_s"
    at = np.array(tables.keys, float) if seconds else np.arange(len(counts))
    with figure(path, 9, 3.2) as (_, axes):
        for index, name in enumerate(tables.names):
            colour = hex_colour(class_colour(index))
            axes.fill_between(at, counts[:, index], step="post", color=colour, alpha=0.18, linewidth=0)
            axes.step(at, counts[:, index], where="post", color=colour, label=f"{name} ({counts[:, index].sum()})")
        axes.set(title=title, xlabel="time (s)" if seconds else "image", ylabel="boxes")
        axes.set_xlim(0, max(float(at[-1]), 1e-3))
        axes.set_ylim(0, max(int(counts.max()) * 1.15, 1))
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=len(tables.names), borderaxespad=0.3)
