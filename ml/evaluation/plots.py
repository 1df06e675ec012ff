"""The curves and the confusion matrix of a judgement."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ml.boxes.drawing import class_colour, hex_colour
from ml.boxes.plotting import ALL_CLASSES, figure
from ml.evaluation.judging import SHOWN_CONFIDENCE, Judgement

POINTS = 101  # of a curve in the table


def write_pr_table(judgement: Judgement, path: Path) -> None:
    """Write precision at the recalls 0, 0.01, ... 1 of each class, for `dvc plots`."""
    recall = np.linspace(0, 1, POINTS)
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["class", "recall", "precision"])
        for name, curve in judgement.curves.items():
            precision = np.interp(recall, np.linspace(0, 1, len(curve.precision)), curve.precision)
            rows.writerows([name, f"{x:.2f}", f"{y:.4f}"] for x, y in zip(recall, precision, strict=True))


def plot_pr(judgement: Judgement, names: Sequence[str], path: Path) -> None:
    """Precision over recall at an intersection over union of 0.5."""
    with figure(path, 6.4, 5.2) as (_, axes):
        for name, curve in judgement.curves.items():
            recall = np.linspace(0, 1, len(curve.precision))
            label = f"{name}  AP50 {curve.average_precision:.3f}"
            axes.plot(recall, curve.precision, color=_colour(names, name), label=label)
        if len(judgement.curves) > 1:
            mean = np.mean([curve.precision for curve in judgement.curves.values()], axis=0)
            label = f"all  mAP50 {judgement.metrics['mAP50']:.3f}"
            axes.plot(np.linspace(0, 1, len(mean)), mean, color=ALL_CLASSES, linestyle=(0, (4, 2)), label=label)
        axes.set(title="Precision and recall", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.03))
        axes.legend(loc="lower left")


def plot_f1(judgement: Judgement, names: Sequence[str], path: Path) -> None:
    """F1 (harmonic mean of precision and recall) over the confidence from which on a box counts."""
    with figure(path, 6.4, 5.2) as (_, axes):
        confidence = np.linspace(0, 1, 1000)
        for name, curve in judgement.curves.items():
            label = f"{name}  best {curve.f1.max():.3f}"
            axes.plot(confidence, curve.f1, color=_colour(names, name), label=label)
        mean = np.mean([curve.f1 for curve in judgement.curves.values()], axis=0)
        if len(judgement.curves) > 1:
            axes.plot(confidence, mean, color=ALL_CLASSES, linestyle=(0, (4, 2)), label="all")
        best = judgement.confidence
        axes.axvline(best, color=ALL_CLASSES, linewidth=1, alpha=0.6)
        side, gap = ("right", -0.015) if best > 0.6 else ("left", 0.015)
        axes.text(best + gap, 1.0, f"best for all: {best:.2f}", ha=side, va="center", color=ALL_CLASSES)
        axes.set(title="F1 over confidence", xlabel="least confidence", ylabel="F1", xlim=(0, 1), ylim=(0, 1.03))
        axes.legend(loc="upper right", bbox_to_anchor=(1, 0.96))


def plot_confusion(judgement: Judgement, names: Sequence[str], path: Path) -> None:
    """What boxes of each class were found as; shares of each column, and how many boxes."""
    counts = judgement.confusion
    shares = counts / np.maximum(counts.sum(axis=0, keepdims=True), 1)
    size = 3.0 + 1.0 * len(counts)
    with figure(path, size + 0.6, size) as (_, axes):
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.grid(visible=False)
        for (row, column), share in np.ndenumerate(shares):
            if row == column == len(names):
                continue  # nothing found where nothing is: cannot be counted
            ink = "white" if share > 0.55 else "#14161a"
            axes.text(column, row, f"{share:.0%}", ha="center", va="bottom", color=ink, fontsize=12, weight="bold")
            axes.text(column, row + 0.06, f"{counts[row, column]}", ha="center", va="top", color=ink, fontsize=9)
        axes.set_xticks(range(len(counts)), [*names, "nothing\n(false boxes)"])
        axes.set_yticks(range(len(counts)), [*names, "nothing\n(missed)"])
        axes.set(xlabel="truth", ylabel="found")
        axes.set_title(f"Found against truth, confidence over {SHOWN_CONFIDENCE}")


def _colour(names: Sequence[str], name: str) -> str:
    return hex_colour(class_colour(names.index(name)))
