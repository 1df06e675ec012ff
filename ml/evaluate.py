"""Stage ``evaluate``: weights judged on the test split, exported to ONNX and OpenVINO, the exports compared.

::

    python -m ml.evaluate --recipe configs/forklift.yaml

Reads ``models/model.pt`` and the test split; writes ``models/model.onnx``, ``models/openvino/`` and
``reports/evaluate/``. The same weights and data give the same files.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from configs.problems import run_main
from configs.recipe import Recipe, load_recipe
from ml.boxes.sheet import save_jpeg
from ml.detection.staging import staged
from ml.evaluation.exporting import export_onnx, export_openvino
from ml.evaluation.judging import Judgement, judge
from ml.evaluation.parity import compare
from ml.evaluation.pictures import typical_sheet, worst_sheet
from ml.evaluation.plots import plot_confusion, plot_f1, plot_pr, write_pr_table
from ml.evaluation.samples import Sample, read_split
from ml.evaluation.weights import load_weights
from ml.events import Events
from ml.inputs import inputs_held
from ml.progress import Progress

MODELS = Path("models")
REPORTS = Path("reports/evaluate")
WEIGHTS, ONNX, OPENVINO = "model.pt", "model.onnx", "openvino"


def evaluate(
    recipe: Recipe, models: Path = MODELS, reports: Path = REPORTS, events: Events | None = None
) -> dict[str, Any]:
    """Judge, export, compare and write the reports.

    Args:
        recipe: says where the data is, and how to judge.
        models: holds ``model.pt``; gets ``model.onnx`` and ``openvino/``, once they are known to agree with it.
        reports: gets ``metrics.json``, ``pr.csv`` and ``plots/``.
        events: told the progress.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        UserError: weights or data are missing or unfit, or the exports do not find what the weights find.
    """
    events = events or Events("evaluate")
    names, settings = recipe.data.classes, recipe.evaluate
    model = load_weights(models / WEIGHTS, names)
    samples = read_split(recipe.data.path, "test", len(names))
    judgement = _judge(model, samples, recipe, events)
    with staged(models) as fresh, staged(reports) as staging:
        export_onnx(model, fresh / ONNX)
        export_openvino(fresh / ONNX, fresh / OPENVINO, names, settings.imgsz, int(max(model.stride)))
        chosen = _spread(samples, settings.parity_images)
        progress = Progress(events, "images", len(chosen), "exports compared")
        parity = compare(model, fresh / ONNX, fresh / OPENVINO, chosen, settings.imgsz, settings.iou, progress)
        progress.finish()
        metrics = _metrics(judgement, parity)
        (staging / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        _draw(judgement, names, settings.worst, staging)
    events.note("evaluated", {name: f"{value:.4f}" for name, value in judgement.metrics.items()})
    return metrics


def judge_weights(recipe: Recipe, weights: Path, events: Events | None = None) -> dict[str, Any]:
    """Judge other weights on the test split by the same rules, and write nothing: for a champion of other days.

    Returns:
        The part of ``metrics.json`` that says how good they are.

    Raises:
        UserError: weights or data are missing or unfit.
    """
    names = recipe.data.classes
    samples = read_split(recipe.data.path, "test", len(names))
    judgement = _judge(load_weights(weights, names), samples, recipe, events or Events("evaluate"))
    return {**judgement.metrics, "classes": judgement.by_class}


def _judge(model: Any, samples: list[Sample], recipe: Recipe, events: Events) -> Judgement:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    progress = Progress(events, "images", len(samples), "judged")
    judgement = judge(model, samples, recipe.data.classes, recipe.evaluate.imgsz, recipe.evaluate.iou, progress)
    progress.finish()
    return judgement


def _spread(samples: list[Sample], count: int) -> list[Sample]:
    """At most ``count`` samples, evenly spread."""
    count = min(count, len(samples))
    return [samples[index * len(samples) // count] for index in range(count)]


def _metrics(judgement: Judgement, parity: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {
        **judgement.metrics,
        "confidence": judgement.confidence,
        "classes": judgement.by_class,
        "images": len(judgement.images),
        "boxes": sum(len(judged.sample.truth) for judged in judgement.images),
        "parity": parity,
    }


def _draw(judgement: Judgement, names: tuple[str, ...], worst: int, reports: Path) -> None:
    plots = reports / "plots"
    plots.mkdir()
    write_pr_table(judgement, reports / "pr.csv")
    plot_pr(judgement, names, plots / "pr.png")
    plot_f1(judgement, names, plots / "f1.png")
    plot_confusion(judgement, names, plots / "confusion.png")
    save_jpeg(typical_sheet(judgement.images, names), plots / "predictions.jpg")
    if worst:
        save_jpeg(worst_sheet(judgement.images, names, worst), plots / "worst.jpg")


def _table(metrics: dict[str, Any]) -> str:
    columns = ("mAP50", "mAP50-95", "precision", "recall")
    rows = [f"{'':<16}" + "".join(f"{column:>11}" for column in columns)]
    for name, values in {"all": metrics, **metrics["classes"]}.items():
        rows.append(f"{name:<16}" + "".join(f"{values[column]:>11.3f}" for column in columns))
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    """Evaluate as the recipe says."""
    parser = argparse.ArgumentParser(prog="python -m ml.evaluate", description="Weights judged on the test split.")
    parser.add_argument("--recipe", type=Path, required=True, help="the recipe that the weights were trained with")
    parser.add_argument("--model", type=Path, metavar="FILE", help="judge these weights only, and export nothing")
    parser.add_argument("--only-metrics", type=Path, metavar="FILE", help="with --model: write the metrics there")
    options = parser.parse_args(arguments)
    if options.model:
        metrics = judge_weights(load_recipe(options.recipe), options.model)
        if options.only_metrics:
            options.only_metrics.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        print(_table(metrics))
        return
    with inputs_held("evaluate", options.recipe):
        print(_table(evaluate(load_recipe(options.recipe))))
    print(f"reports: {REPORTS}, exports: {MODELS / ONNX}, {MODELS / OPENVINO}")


if __name__ == "__main__":
    run_main(main)
