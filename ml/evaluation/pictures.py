"""Test images with boxes: where the model does worst, and what its boxes look like in general."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ml.boxes.drawing import INK, Colour, Image, RgbCanvas, class_colour, draw_boxes, label, line_width, outline
from ml.boxes.geometry import Boxes, match
from ml.boxes.sheet import Cell, contact_sheet
from ml.evaluation.judging import Judged

LEAST_IOU = 0.5
CELL = 360  # longer side of a picture on the sheet, pixels
COLUMNS = 4
TYPICAL = 12


@dataclass(frozen=True)
class Faults:
    """What is wrong with the boxes of an image; indices into the boxes found and into the truth.

    Attributes:
        false: boxes where nothing of their class is.
        missed: true boxes that were not found.
        weight: each missed box counts 1, each false box its confidence: the surer, the worse.
    """

    false: tuple[int, ...]
    missed: tuple[int, ...]
    weight: float


def faults(judged: Judged) -> Faults:
    """Compare the boxes found in an image with its truth, at an intersection over union of ``LEAST_IOU``."""
    found, truth = judged.found, judged.sample.truth
    right, hit = match(found, truth, LEAST_IOU)
    false = tuple(index for index in range(len(found)) if index not in set(right.tolist()))
    missed = tuple(index for index in range(len(truth)) if index not in set(hit.tolist()))
    return Faults(false, missed, len(missed) + float(sum(found.confidence[index] for index in false)))


def worst_sheet(images: Sequence[Judged], names: Sequence[str], count: int) -> Image:
    """The images with the gravest faults, gravest first: right boxes thin, false ones thick with their
    confidence, missed truth dashed."""
    ranked = sorted(images, key=lambda judged: (-faults(judged).weight, judged.sample.path.name))[:count]
    cells = []
    for judged in ranked:
        wrong = faults(judged)
        caption = f"{judged.sample.path.name}: {len(wrong.missed)} missed, {len(wrong.false)} false"
        cells.append(Cell(_faulty(judged, wrong), caption))
    extra = "dashed: missed   thick: false, with confidence   thin: right"
    return contact_sheet(cells, "Worst images", names, COLUMNS, (CELL, CELL), extra)


def typical_sheet(images: Sequence[Judged], names: Sequence[str]) -> Image:
    """Images spread evenly over the split, with the boxes that the model finds."""
    count = min(TYPICAL, len(images))
    chosen = [images[(2 * index + 1) * len(images) // (2 * count)] for index in range(count)]
    cells = []
    for judged in chosen:
        picture, scale = _enlarged(judged.sample.image())
        draw_boxes(RgbCanvas(picture), _scaled(judged.found, scale), names)
        cells.append(Cell(picture, f"{judged.sample.path.name}: {_count(len(judged.found))}"))
    return contact_sheet(cells, "Predictions on the test split", names, COLUMNS, (CELL, CELL))


def _faulty(judged: Judged, wrong: Faults) -> Image:
    picture, scale = _enlarged(judged.sample.image())
    canvas = RgbCanvas(picture)
    line = line_width(canvas.height, canvas.width)
    found, truth = _scaled(judged.found, scale), _scaled(judged.sample.truth, scale)
    for index in range(len(found)):
        if index not in wrong.false:
            outline(canvas, found.xyxy[index], class_colour(int(found.classes[index])), line // 2)
    for index in wrong.missed:
        _dashed(picture, truth.xyxy[index], class_colour(int(truth.classes[index])), line)
    for index in wrong.false:
        kind = int(found.classes[index])
        outline(canvas, found.xyxy[index], class_colour(kind), 2 * line)
        _tag(canvas, found.xyxy[index], f"{found.confidence[index]:.2f}", class_colour(kind))
    return picture


def _dashed(picture: Image, xyxy: np.ndarray[tuple[int], np.dtype[np.float32]], colour: Colour, line: int) -> None:
    """A rectangle in dashes of the class's colour on a dark line, which shows on any ground."""
    x0, y0, x1, y1 = (round(float(value)) for value in xyxy)
    cv2.rectangle(picture, (x0, y0), (x1, y1), INK, line + 1)
    dash = 4 * line
    for x in range(x0, x1, 2 * dash):
        for y in (y0, y1):
            cv2.line(picture, (x, y), (min(x + dash, x1), y), colour, line)
    for y in range(y0, y1, 2 * dash):
        for x in (x0, x1):
            cv2.line(picture, (x, y), (x, min(y + dash, y1)), colour, line)


def _tag(canvas: RgbCanvas, xyxy: np.ndarray[tuple[int], np.dtype[np.float32]], text: str, ground: Colour) -> None:
    tag = label(text, ground, 11)
    x, y = round(float(xyxy[0])), round(float(xyxy[1])) - tag.shape[0]
    canvas.paste(max(min(x, canvas.width - tag.shape[1]), 0), y if y >= 0 else y + tag.shape[0], tag)


def _enlarged(image: Image) -> tuple[Image, float]:
    """The image at the size it has on the sheet, so that lines and labels stay sharp; and the factor."""
    scale = CELL / max(image.shape[:2])
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8), scale


def _scaled(boxes: Boxes, scale: float) -> Boxes:
    return Boxes(boxes.xyxy * np.float32(scale), boxes.confidence, boxes.classes)


def _count(boxes: int) -> str:
    return f"{boxes} box" if boxes == 1 else f"{boxes} boxes"
