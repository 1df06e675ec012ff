"""Validation after an epoch: the metrics of Ultralytics without its plots, losses and slow start.

Ultralytics' own validator imports torchvision, which imports PyTorch's compiler (four seconds), and gives up its
non-maximum suppression after two seconds, so that the result depends on how busy the machine is.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.utils.metrics import DetMetrics, box_iou
from ultralytics.utils.ops import xywh2xyxy
from ultralytics.utils.tal import make_anchors

CONFIDENCE, OVERLAP, DETECTIONS = 0.001, 0.7, 300
"""Least confidence, overlap above which two boxes of a class are one, most boxes an image: Ultralytics' defaults."""

_CANDIDATES = 30_000
_CLASS_OFFSET = 8192  # pixels between the boxes of two classes, so that one suppression does all classes
_LEVELS = np.linspace(0.5, 0.95, 10, dtype=np.float32)


class EpochValidator:
    """Judges the averaged weights on the val split, at the training's resolution and precision.

    Args:
        loader: batches as Ultralytics collates them.
        names: class names by number.
    """

    def __init__(self, loader: Any, names: dict[int, str]) -> None:
        load_suppression()
        self.dataloader = loader
        self.metrics = DetMetrics(names)

    def __call__(self, trainer: Any) -> dict[str, float]:
        """Metrics of the trainer's averaged (EMA) model: mAP50, mAP50-95, precision, recall, each in 0..1."""
        model = trainer.ema.ema.eval()
        head = model.model[-1]
        self.metrics.clear_stats()
        self.metrics.clear_image_metrics()
        # The head gives raw outputs in training mode; they are decoded here in fp32, because bf16 has eight bits for
        # a coordinate. Its layers stay in evaluation mode.
        head.training = True
        with torch.no_grad():
            for batch in self.dataloader:
                batch = trainer.preprocess_batch(batch)
                with trainer.autocast():
                    raw = model(batch["img"])
                self._count(batch, [suppress(image) for image in decode(head, as_fp32(raw))])
        head.training = False
        self.metrics.process()
        precision, recall, map50, map50_95 = (float(value) for value in self.metrics.mean_results())
        return {"mAP50": map50, "mAP50-95": map50_95, "precision": precision, "recall": recall}

    def _count(self, batch: dict[str, Any], detections: list[torch.Tensor]) -> None:
        height, width = batch["img"].shape[2:]
        scale = torch.tensor([width, height, width, height])
        owner, classes, boxes = (batch[key].cpu() for key in ("batch_idx", "cls", "bboxes"))
        for index, found in enumerate(detections):
            mine = owner == index
            truth = classes[mine].flatten()
            overlaps = box_iou(xywh2xyxy(boxes[mine]) * scale, found[:, :4]) * (truth[:, None] == found[:, 5])
            self.metrics.update_stats(
                {
                    "tp": true_positives(overlaps.numpy()),
                    "conf": found[:, 4].numpy(),
                    "pred_cls": found[:, 5].numpy(),
                    "target_cls": truth.numpy(),
                    "target_img": truth.unique().numpy(),
                    "im_name": batch["im_file"][index],
                }
            )


def load_suppression() -> None:
    """Make ``torch.ops.torchvision.nms`` available, from torchvision's library alone where it is found."""
    found = importlib.util.find_spec("torchvision")
    folder = Path(found.origin).parent if found and found.origin else Path()
    for library in folder.glob("_C*"):
        if library.suffix in {".so", ".pyd", ".dylib"}:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    if not hasattr(torch.ops.torchvision, "nms"):
        import torchvision  # noqa: F401


def as_fp32(raw: dict[str, Any]) -> dict[str, Any]:
    """The head's raw outputs in fp32. Of the feature maps only shape and type matter to decoding and loss."""
    return {
        "boxes": raw["boxes"].float(),
        "scores": raw["scores"].float(),
        "feats": [torch.empty_like(x, dtype=torch.float32) for x in raw["feats"]],
    }


def decode(head: Any, raw: dict[str, Any]) -> torch.Tensor:
    """Boxes (x, y, width, height in pixels) and class scores, shape (images, anchors, 4 + classes)."""
    anchors, strides = (x.transpose(0, 1) for x in make_anchors(raw["feats"], head.stride, 0.5))
    boxes = head.decode_bboxes(head.dfl(raw["boxes"]), anchors.unsqueeze(0)) * strides
    return torch.cat((boxes, raw["scores"].sigmoid()), 1).transpose(1, 2)


def suppress(predictions: torch.Tensor) -> torch.Tensor:
    """Non-maximum suppression of one image.

    Args:
        predictions: (anchors, 4 + classes) as given by ``decode``.

    Returns:
        (detections, 6) on the CPU: left, top, right, bottom in pixels, confidence, class; most confident first.
    """
    anchor, label = torch.where(predictions[:, 4:] > CONFIDENCE)
    scores = predictions[anchor, 4 + label]
    if len(scores) > _CANDIDATES:
        scores, best = scores.topk(_CANDIDATES)
        anchor, label = anchor[best], label[best]
    boxes = xywh2xyxy(predictions[anchor, :4])
    kept = torch.ops.torchvision.nms(boxes + label[:, None] * _CLASS_OFFSET, scores, OVERLAP)[:DETECTIONS]
    return torch.cat((boxes[kept], scores[kept, None], label[kept, None]), 1).cpu()


def true_positives(overlaps: np.ndarray) -> np.ndarray:
    """Which detections find an object, at the ten overlaps 0.50, 0.55 ... 0.95 of the COCO metric.

    Args:
        overlaps: (objects, detections) overlap, 0 where the classes differ; most confident detection first.

    Returns:
        (detections, 10) booleans. A detection gets the object it overlaps most of those not yet taken.
    """
    objects, detections = overlaps.shape
    correct = np.zeros((detections, len(_LEVELS)), bool)
    if not objects:
        return correct
    taken = np.zeros((objects, len(_LEVELS)), bool)
    levels = np.arange(len(_LEVELS))
    for index in np.flatnonzero(overlaps.max(0) >= _LEVELS[0]):
        free = np.where(taken, 0, overlaps[:, index, None])
        best = free.argmax(0)
        correct[index] = free[best, levels] >= _LEVELS
        taken[best, levels] |= correct[index]
    return correct
