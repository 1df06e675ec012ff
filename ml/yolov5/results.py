"""What a finished training leaves: weights, metrics, history; kept with their hashes to be given out again."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import resource
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.recipe import Recipe
from ml.yolov5.checkpoints import State, write_atomically

if TYPE_CHECKING:
    import torch

MODEL, METRICS, HISTORY = "models/model.pt", "reports/train/metrics.json", "reports/train/history.csv"
"""The stage's outputs, below the folder it runs in."""

_COLUMNS = ["epoch", "box_loss", "cls_loss", "dfl_loss", "mAP50", "mAP50-95", "precision", "recall", "lr", "seconds"]
_SEAL = "finished.json"


def outputs(recipe: Recipe, state: State) -> dict[str, bytes]:
    """The stage's output files, by path, from the state after the last epoch."""
    weights = state["best"]["weights"]
    return {
        MODEL: model_file(recipe, state),
        METRICS: metrics_file(state, weights_sha256(weights)),
        HISTORY: history_file(state["history"]),
    }


def model_file(recipe: Recipe, state: State) -> bytes:
    """The best weights as ``ultralytics.YOLO`` loads them, in half precision.

    The model is built anew and nothing of time or place goes in, so that the same weights give the same bytes.
    """
    import torch
    from ultralytics.nn.tasks import DetectionModel

    names = dict(enumerate(recipe.data.classes))
    about = {"task": "detect", "imgsz": recipe.train.imgsz, "names": names}
    architecture = {**state["architecture"], "yaml_file": Path(state["architecture"].get("yaml_file", "")).name}
    model = DetectionModel(architecture, nc=len(names), verbose=False)
    model.load_state_dict(state["best"]["weights"])
    model.half().eval().requires_grad_(False)
    model.names, model.args, model.task = names, about, "detect"
    buffer = io.BytesIO()
    torch.save(
        {
            "model": model,
            "train_args": about,
            "train_metrics": state["best"]["metrics"],
            "epoch": -1,
            "version": version("ultralytics"),
            "license": "AGPL-3.0-only",
        },
        buffer,
    )
    return buffer.getvalue()


def weights_sha256(weights: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and values: the same for the same weights in whatever file."""
    total = hashlib.sha256()
    for name, value in sorted(weights.items()):
        total.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def metrics_file(state: State, sha256: str) -> bytes:
    """Metrics of the best epoch on the val split, and under which conditions they came about."""
    history, best = state["history"], state["best"]
    seconds = sum(row["seconds"] for row in history)
    content = {
        **best["metrics"],
        "epochs": len(history),
        "best_epoch": best["epoch"],
        "world": {
            **state["settings"],
            "images_per_s": round(state["images"] * len(history) / seconds, 2),
            "seconds": round(seconds, 2),
            "peak_memory_mb": peak_memory_mb(),
            "ultralytics": version("ultralytics"),
            "torch": version("torch"),
        },
        "weights_sha256": sha256,
    }
    return (json.dumps(content, indent=2) + "\n").encode()


def history_file(history: list[dict[str, float]]) -> bytes:
    """One row an epoch; metrics are empty where an epoch was not validated."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in history)
    return text.getvalue().encode()


def peak_memory_mb() -> int:
    """The most main memory this process has held, in MB of 2**20 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20


def seal(folder: Path, files: dict[str, bytes]) -> None:
    """Keep a finished training's outputs in ``folder``, their hashes last: without these it is not finished."""
    for path, content in files.items():
        write_atomically(folder / Path(path).name, content)
    hashes = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    write_atomically(folder / _SEAL, json.dumps(hashes, indent=2).encode())


def sealed(folder: Path) -> dict[str, bytes] | None:
    """The outputs of a finished training, None where it is not finished or a file is not what it was."""
    try:
        hashes: dict[str, Any] = json.loads((folder / _SEAL).read_bytes())
        files = {path: (folder / Path(path).name).read_bytes() for path in hashes}
    except (OSError, ValueError):
        return None
    if {path: hashlib.sha256(content).hexdigest() for path, content in files.items()} != hashes:
        return None
    return files
