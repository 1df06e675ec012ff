"""``report.json``: what a validation found, the same bytes for the same dataset.

Schema 1. No times, no absolute paths; lists are sorted, keys stand in a fixed order::

    schema      1
    verdict     "pass" or "fail"
    faulty      files: images with at least one error (their own or their label's), plus orphan labels
                of: all images, plus orphan labels
                share: files / of;  max_share: what is allowed
                dataset_errors: errors of the dataset as a whole, any of which fails
    images, boxes, background (images whose label is empty)
    classes     name -> boxes
    splits      train|val|test -> images, background, faulty, boxes, classes (name -> boxes),
                images_with (name -> images that show the class)
    box_sizes   train|val|test -> bin -> boxes; a box's size is the root of its area in pixels of its
                image, the bins are "0-8", "8-16", ... "256-" (lower bound included)
    fault_kinds kind (see ml.dataset.faults) -> how often
    faults      list of file, line (0: the whole file), kind, severity ("error" or "warning"), reason
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ml.dataset.checks import Inspection, Look
from ml.dataset.faults import Fault
from ml.dataset.layout import SPLITS, name_in

BINS = (8, 16, 32, 64, 128, 256)
_BIN_NAMES = ("0-8", *(f"{low}-{high}" for low, high in pairwise(BINS)), f"{BINS[-1]}-")


@dataclass(frozen=True)
class Report:
    """A validation's outcome: ``values`` is what ``report.json`` holds."""

    values: dict[str, Any]
    faults: tuple[Fault, ...]

    @property
    def passed(self) -> bool:
        return bool(self.values["verdict"] == "pass")

    @property
    def errors(self) -> tuple[Fault, ...]:
        return tuple(fault for fault in self.faults if fault.severity == "error")

    @property
    def warnings(self) -> tuple[Fault, ...]:
        return tuple(fault for fault in self.faults if fault.severity == "warning")

    def write(self, path: Path) -> None:
        """Write ``report.json``."""
        path.write_text(json.dumps(self.values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def make_report(inspection: Inspection, max_faulty: float) -> Report:
    """Judge ``inspection``: it fails if the share of faulty files is above ``max_faulty``, or the dataset is unfit."""
    dataset, looks, faults = inspection.dataset, inspection.looks, inspection.faults
    faulty = faulty_files(inspection)
    orphans = {fault.file for fault in faults if fault.kind == "label-orphan"}
    lost = {fault.file for fault in faults if fault.kind == "image-extension"}
    total = len(looks) + len(orphans) + len(lost)
    share = len(faulty) / total if total else 0.0
    unfit = sum(fault.of_dataset and fault.severity == "error" for fault in faults)
    splits = {
        split: _split([look for look in looks if look.sample.split == split], dataset.classes) for split in SPLITS
    }
    for split, counts in splits.items():
        counts["faulty"] = sum(file.split("/")[1] == split for file in faulty)
    values = {
        "schema": 1,
        "verdict": "fail" if unfit or share > max_faulty else "pass",
        "faulty": {
            "files": len(faulty),
            "of": total,
            "share": round(share, 6),
            "max_share": max_faulty,
            "dataset_errors": unfit,
        },
        "images": len(looks),
        "boxes": sum(counts["boxes"] for counts in splits.values()),
        "background": sum(counts["background"] for counts in splits.values()),
        "classes": {name: sum(counts["classes"][name] for counts in splits.values()) for name in dataset.classes},
        "splits": splits,
        "box_sizes": {split: _sizes(look for look in looks if look.sample.split == split) for split in SPLITS},
        "fault_kinds": dict(sorted(Counter(fault.kind for fault in faults).items())),
        "faults": [
            {
                "file": fault.file,
                "line": fault.line,
                "kind": fault.kind,
                "severity": fault.severity,
                "reason": fault.reason,
            }
            for fault in faults
        ],
    }
    return Report(values, faults)


def faulty_files(inspection: Inspection) -> set[str]:
    """Images with an error of their own or in their label, and label files without an image."""
    root = inspection.dataset.root
    owner = {name_in(root, look.sample.label): name_in(root, look.sample.image) for look in inspection.looks}
    return {
        owner.get(fault.file, fault.file)
        for fault in inspection.faults
        if fault.severity == "error" and not fault.of_dataset
    }


def _split(looks: list[Look], classes: tuple[str, ...]) -> dict[str, Any]:
    boxes: Counter[int] = Counter()
    images: Counter[int] = Counter()
    for look in looks:
        ids = [box.class_id for box in look.labels.boxes] if look.labels else []
        boxes.update(ids)
        images.update(set(ids))
    return {
        "images": len(looks),
        "background": sum(is_background(look) for look in looks),
        "faulty": 0,
        "boxes": boxes.total(),
        "classes": {name: boxes[number] for number, name in enumerate(classes)},
        "images_with": {name: images[number] for number, name in enumerate(classes)},
    }


def is_background(look: Look) -> bool:
    """True when the label file is there and empty: the image shows none of the classes."""
    return look.labels is not None and not look.labels.boxes and not look.labels.faults


def _sizes(looks: Iterable[Look]) -> dict[str, int]:
    counts = dict.fromkeys(_BIN_NAMES, 0)
    for look in looks:
        if look.picture is None or look.labels is None:
            continue
        for box in look.labels.boxes:
            size = math.sqrt(box.w * look.picture.width * box.h * look.picture.height)
            counts[_BIN_NAMES[sum(size >= bound for bound in BINS)]] += 1
    return counts
