"""Do the exports find what the weights find?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.problems import Problem, UserError
from ml.boxes.drawing import Image
from ml.boxes.geometry import Boxes, Floats, decode, iou, match
from ml.detection.network import ExportedModel
from ml.evaluation.samples import Sample, letterbox
from ml.progress import Progress
from ml.quiet import quiet_libraries

LEAST_IOU = 0.9
LEAST_CONFIDENCE = 0.25
# A box this close to the least confidence may be on either side of it.
MARGIN = 0.005
MOST_SCORE_DIFFERENCE = 0.01
Runtime = Callable[[Image], Floats]


def compare(
    model: Any, onnx: Path, openvino: Path, samples: Sequence[Sample], imgsz: int, overlap: float, progress: Progress
) -> dict[str, dict[str, float]]:
    """Compare ONNX Runtime and OpenVINO with PyTorch, image by image.

    Args:
        model: the weights.
        onnx: the exported file.
        openvino: the exported folder.
        samples: images to compare on.
        imgsz: longer side of an image in the network's input, pixels.
        overlap: for the suppression of boxes.
        progress: told each image.

    Returns:
        For each runtime: boxes compared, the share that agree, the least overlap of a pair, and the greatest
        difference of a score over all candidates.

    Raises:
        UserError: a runtime finds other boxes: no counterpart of the same class with an intersection over union of
            ``LEAST_IOU``, or scores that differ by more than ``MOST_SCORE_DIFFERENCE``.
    """
    reference = _pytorch(model)
    runtimes = {"onnx": _onnx(onnx), "openvino": _openvino(openvino)}
    files = {"onnx": onnx, "openvino": openvino}
    tallies = {name: _Tally() for name in runtimes}
    for sample in samples:
        image = sample.placed(letterbox(sample.size, imgsz, int(max(model.stride))))
        expected = reference(image)
        for name, runtime in runtimes.items():
            tallies[name].add(expected, runtime(image), overlap)
        progress.advance()
    problems = [
        Problem(
            str(files[name].name),
            f"does not find what the weights find: {tally.agreeing} of {tally.boxes} boxes agree, scores differ by up "
            f"to {tally.score_difference:.4f}",
            "the converter does not suit this model: compare the versions of torch, onnx and openvino with the lock",
        )
        for name, tally in tallies.items()
        if not tally.passed
    ]
    if problems:
        raise UserError(problems)
    return {name: tally.figures(len(samples)) for name, tally in tallies.items()}


class _Tally:
    """Agreement of one runtime with PyTorch so far. Each box of either side must have a counterpart."""

    def __init__(self) -> None:
        self.boxes = self.agreeing = 0
        self.least_iou = 1.0
        self.score_difference = 0.0

    @property
    def passed(self) -> bool:
        return self.agreeing == self.boxes and self.score_difference <= MOST_SCORE_DIFFERENCE

    def add(self, expected: Floats, raw: Floats, overlap: float) -> None:
        self.score_difference = max(self.score_difference, float(np.abs(expected[4:] - raw[4:]).max()))
        theirs, ours = (decode(values, LEAST_CONFIDENCE - MARGIN, overlap) for values in (expected, raw))
        self._count(theirs, ours)
        self._count(ours, theirs)

    def _count(self, these: Boxes, others: Boxes) -> None:
        certain = these[these.confidence >= LEAST_CONFIDENCE + MARGIN]
        first, second = match(certain, others, LEAST_IOU)
        self.boxes += len(certain)
        self.agreeing += len(first)
        if len(first):
            pairs = iou(certain.xyxy[first], others.xyxy[second]).diagonal()
            self.least_iou = min(self.least_iou, float(pairs.min()))

    def figures(self, images: int) -> dict[str, float]:
        return {
            "images": images,
            "boxes": self.boxes,
            "agreeing": round(self.agreeing / self.boxes, 4) if self.boxes else 1.0,
            "least_iou": round(self.least_iou, 3),
            "score_difference": round(self.score_difference, 3),
        }


def _pytorch(model: Any) -> Runtime:
    import torch

    def run(image: Image) -> Floats:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(_planes(image)))[0][0].numpy(), np.float32)

    return run


def _onnx(path: Path) -> Runtime:
    quiet_libraries()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: np.asarray(session.run(None, {session.get_inputs()[0].name: _planes(image)})[0][0], np.float32)


def _openvino(folder: Path) -> Runtime:
    exported = ExportedModel.load(folder)
    compiled: dict[tuple[int, ...], Any] = {}

    def run(image: Image) -> Floats:
        shape = (image.shape[0], image.shape[1])
        if shape not in compiled:
            compiled[shape] = exported.compile(shape, "fp32", throughput=False)
        planes = np.ascontiguousarray(image.transpose(2, 0, 1)[None])
        return np.array(compiled[shape](planes)[0][0], np.float32)

    return run


def _planes(image: Image) -> Floats:
    """RGB bytes (height, width, 3) as floats from 0 to 1, (1, 3, height, width)."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
