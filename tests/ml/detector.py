"""A real detector in a few CPU seconds: a YOLOv5n that has learnt orange blocks from blue posts on grey ground."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import yaml

from configs.recipe import Recipe

NAMES = ("block", "post")
SIZE = 96  # sides of the training images, pixels
COLOURS = ((240, 150, 30), (40, 90, 230))
SHAPES = ((0.34, 0.26), (0.14, 0.44))  # width and height as shares of the image's height


@dataclass(frozen=True)
class Workplace:
    """A checkout's folders: ``data`` with a test split, ``models`` with weights and exports, ``reports``."""

    root: Path
    recipe: Recipe
    metrics: dict[str, object]

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def openvino(self) -> Path:
        return self.models / "openvino"


def scene(seed: int, height: int = SIZE, width: int = SIZE) -> tuple[np.ndarray, list[tuple[int, list[float]]]]:
    """An RGB picture and its boxes: (class, corners in pixels). The same for the same arguments."""
    random = np.random.default_rng(seed)
    image = np.clip(random.normal(110, 6, (height, width, 1)) + np.zeros(3), 0, 255).astype(np.uint8)
    boxes: list[tuple[int, list[float]]] = []
    for slot in range(2):
        kind = int(random.integers(2))
        grow = random.uniform(0.85, 1.15)
        w, h = (int(share * height * grow) for share in SHAPES[kind])
        low = slot * width // 2
        x0 = int(random.integers(low, max(low + width // 2 - w, low + 1)))
        y0 = int(random.integers(0, height - h))
        image[y0 : y0 + h, x0 : x0 + w] = COLOURS[kind]
        image[y0 + h // 3 : y0 + h // 3 + max(h // 8, 1), x0 : x0 + w] = 20
        boxes.append((kind, [x0, y0, x0 + w, y0 + h]))
    return image, boxes


def write_split(root: Path, split: str, seeds: range, height: int = SIZE, width: int = SIZE) -> None:
    """Images and labels of a split in YOLO layout."""
    images, labels = root / "images" / split, root / "labels" / split
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        image, boxes = scene(seed, height, width)
        cv2.imwrite(str(images / f"{seed:03d}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        rows = [
            f"{kind} {(x0 + x1) / 2 / width:.6f} {(y0 + y1) / 2 / height:.6f} "
            f"{(x1 - x0) / width:.6f} {(y1 - y0) / height:.6f}"
            for kind, (x0, y0, x1, y1) in boxes
        ]
        (labels / f"{seed:03d}.txt").write_text("\n".join(rows) + "\n")


def train(root: Path) -> Path:
    """Train on scenes 0 to 63; return the weights."""
    import torch
    from ultralytics import YOLO, settings

    settings.update({"mlflow": False, "wandb": False, "tensorboard": False, "sync": False})
    data = root / "training"
    write_split(data, "train", range(64))
    write_split(data, "val", range(64, 66))
    config = {"path": str(data), "train": "images/train", "val": "images/val", "names": dict(enumerate(NAMES))}
    (data / "dataset.yaml").write_text(yaml.safe_dump(config))
    model = YOLO("yolov5n.yaml", verbose=False)
    model.add_callback("on_train_start", lambda _: torch.set_num_threads(1))
    model.train(
        **{"data": str(data / "dataset.yaml"), "imgsz": SIZE, "epochs": 14, "batch": 8, "nbs": 8, "optimizer": "AdamW"},
        **{"lr0": 0.004, "lrf": 0.05, "warmup_epochs": 0.5, "mosaic": 0.0, "scale": 0.3, "translate": 0.1},
        **{"fliplr": 0.5, "hsv_h": 0.0, "val": False, "plots": False, "cache": "ram", "seed": 0, "verbose": False},
        **{"project": str(root), "name": "run", "exist_ok": True, "device": "cpu", "workers": 0},
    )
    return root / "run" / "weights" / "last.pt"


def make_recipe(data: Path, **evaluate: object) -> Recipe:
    """A recipe of the test detector."""
    settings = {"imgsz": SIZE, "parity_images": 6, "worst": 4, **evaluate}
    section = {"path": data, "classes": list(NAMES)}
    return Recipe.model_validate({"name": "blocks", "data": section, "evaluate": settings})


def write_video(
    path: Path,
    frames: int = 12,
    height: int = 180,
    width: int = 320,
    ticks: Sequence[int] | None = None,
    pixels: str = "yuv420p",
    rotation: int = 0,
    truth: bool = False,
) -> Path:
    """A video of detector scenes, one a frame, 25 a second or shown at ``ticks`` (1/1000 s)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "8", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = height, width, pixels
        time_base = Fraction(1, 1000) if ticks else Fraction(1, 25)
        stream.codec_context.time_base = stream.time_base = time_base
        if rotation:
            stream.set_display_rotation(rotation)
        for index in range(frames):
            image, _ = scene(200 + index, height, width)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = ticks[index] if ticks else index, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if truth:
        lines = [
            {"frame": index, "boxes": [{"track": 0, "class": kind, "name": "", "xyxy": xyxy} for kind, xyxy in boxes]}
            for index in range(frames)
            for _, boxes in [scene(200 + index, height, width)]
        ]
        path.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
