"""The figures: what Ultralytics' validator says about a model on a split, and the boxes of each image.

On the CPU in float32, so that one model has the same figures on every machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml.boxes.geometry import Boxes, Floats
from ml.evaluation.samples import Sample, batches
from ml.progress import Progress

BATCH = 16
LEAST_CONFIDENCE = 0.001  # as Ultralytics validates: curves need the doubtful boxes too
SHOWN_CONFIDENCE = 0.25  # from here on a box counts in the confusion matrix and in pictures
MOST_BOXES = 300
PLENTY_S = 3600.0
DIGITS = 4


@dataclass(frozen=True)
class Judged:
    """One image, and the boxes of the model in its pixels with a confidence above ``SHOWN_CONFIDENCE``."""

    sample: Sample
    found: Boxes


@dataclass(frozen=True)
class Curve:
    """Of one class, or of all on average; each array of shape (1000,).

    Attributes:
        precision: at the recalls 0, 1/999, ... 1.
        f1: at the confidences 0, 1/999, ... 1.
        average_precision: area under precision over recall at an intersection over union of 0.5.
    """

    precision: npt.NDArray[np.float64]
    f1: npt.NDArray[np.float64]
    average_precision: float


@dataclass(frozen=True)
class Judgement:
    """What came of judging.

    Attributes:
        metrics: of all classes together: mAP50, mAP50-95, precision, recall.
        by_class: the same for each class that is in the split.
        confidence: where precision and recall are taken: the confidence with the best mean F1.
        curves: for each class that is in the split.
        confusion: boxes by class found (rows) and true class (columns); the last of both is "nothing there".
        images: in the order of their names.
    """

    metrics: dict[str, float]
    by_class: dict[str, dict[str, float]]
    confidence: float
    curves: dict[str, Curve]
    confusion: npt.NDArray[np.int64]
    images: tuple[Judged, ...]


def judge(
    model: Any, samples: list[Sample], names: Sequence[str], imgsz: int, overlap: float, progress: Progress
) -> Judgement:
    """Judge a detector on samples.

    Args:
        model: as :func:`~ml.evaluation.weights.load_weights` gives it.
        samples: at least one of them with a box.
        names: the classes.
        imgsz: longer side of an image in the network's input, pixels.
        overlap: of two boxes of a class that overlap more than this, the less confident is dropped.
        progress: told each image.
    """
    import torch
    from ultralytics.utils.metrics import ConfusionMatrix
    from ultralytics.utils.nms import non_max_suppression

    validator = _validator(model, imgsz, overlap)
    confusion = ConfusionMatrix(names=dict(enumerate(names)))
    judged: dict[Path, Judged] = {}
    with torch.inference_mode():
        for batch in batches(samples, imgsz, int(max(model.stride)), BATCH):
            prepared = validator.preprocess(_as_ultralytics(batch))
            # Not the validator's own call: it gives up on a batch after some seconds, so a busy machine loses boxes.
            found = non_max_suppression(
                model(prepared["img"]),
                LEAST_CONFIDENCE,
                overlap,
                multi_label=True,
                max_det=MOST_BOXES,
                max_time_img=PLENTY_S,
            )
            answers = [{"bboxes": x[:, :4], "conf": x[:, 4], "cls": x[:, 5], "extra": x[:, 6:]} for x in found]
            validator.update_metrics(answers, prepared)
            for index, (sample, fit) in enumerate(batch):
                confusion.process_batch(
                    answers[index], validator._prepare_batch(index, prepared), conf=SHOWN_CONFIDENCE
                )
                boxes = _boxes(found[index])
                shown = Boxes(fit.restore(boxes.xyxy), boxes.confidence, boxes.classes)
                judged[sample.path] = Judged(sample, shown[shown.confidence > SHOWN_CONFIDENCE])
            progress.advance(len(batch))
    validator.metrics.process()
    return _judgement(validator.metrics.box, names, confusion.matrix, [judged[sample.path] for sample in samples])


def _validator(model: Any, imgsz: int, overlap: float) -> Any:
    from ultralytics.models.yolo.detect import DetectionValidator

    class NoImages:
        """Stands for the loader, of which the validator only asks how many boxes an image has."""

        dataset = type("Nothing", (), {"labels": []})()

    with tempfile.TemporaryDirectory() as scratch:
        arguments = {"task": "detect", "imgsz": imgsz, "iou": overlap, "max_det": MOST_BOXES, "plots": False}
        validator = DetectionValidator(dataloader=NoImages(), save_dir=Path(scratch), args=arguments)
    import torch

    validator.training, validator.data, validator.device = False, {}, torch.device("cpu")
    validator.init_metrics(model)
    return validator


def _as_ultralytics(batch: list[Any]) -> dict[str, Any]:
    """A batch as the validator takes it; boxes as centre and size, normalised to the network's input."""
    import torch

    classes, boxes, owner = [], [], []
    for index, (sample, fit) in enumerate(batch):
        gain = np.array([fit.scaled[1] / fit.image[1], fit.scaled[0] / fit.image[0]] * 2)
        corners = sample.truth.xyxy * gain + np.array([fit.left, fit.top] * 2)
        centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        boxes.append(np.concatenate([centre, size], axis=1) / np.array([fit.network[1], fit.network[0]] * 2))
        classes.append(sample.truth.classes)
        owner.append(np.full(len(sample.truth), index))
    images = np.stack([sample.placed(fit).transpose(2, 0, 1) for sample, fit in batch])
    return {
        "img": torch.from_numpy(images),
        "cls": torch.from_numpy(np.concatenate(classes)).float()[:, None],
        "bboxes": torch.from_numpy(np.concatenate(boxes)).float(),
        "batch_idx": torch.from_numpy(np.concatenate(owner)),
        "im_file": [str(sample.path) for sample, _ in batch],
        "ori_shape": [fit.image for _, fit in batch],
        "ratio_pad": [
            ((fit.scaled[0] / fit.image[0], fit.scaled[1] / fit.image[1]), (fit.left, fit.top)) for _, fit in batch
        ],
    }


def _boxes(rows: Any) -> Boxes:
    values: Floats = rows.numpy().astype(np.float32)
    return Boxes(values[:, :4], values[:, 4], values[:, 5].astype(np.int64))


def _judgement(box: Any, names: Sequence[str], confusion: Any, images: list[Judged]) -> Judgement:
    def figures(precision: float, recall: float, at_half: float, overall: float) -> dict[str, float]:
        values = {"mAP50": at_half, "mAP50-95": overall, "precision": precision, "recall": recall}
        return {name: round(float(value), DIGITS) for name, value in values.items()}

    present = [names[int(index)] for index in box.ap_class_index]
    curves = {
        name: Curve(box.prec_values[index], box.f1_curve[index], float(box.ap50[index]))
        for index, name in enumerate(present)
    }
    best = float(_smooth(np.mean([curve.f1 for curve in curves.values()], axis=0)).argmax()) / 999
    return Judgement(
        figures(*box.mean_results()),
        {name: figures(*box.class_result(index)) for index, name in enumerate(present)},
        round(best, DIGITS),
        curves,
        confusion.astype(np.int64),
        tuple(images),
    )


def _smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The smoothing with which Ultralytics looks for the best mean F1, so that both name one confidence."""
    from ultralytics.utils.metrics import smooth

    return np.asarray(smooth(values, 0.1))
