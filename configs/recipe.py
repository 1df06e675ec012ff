"""The recipe of a detector: what ``configs/forklift.yaml`` may say.

A recipe is all that a training depends on besides code and data. Its sections are the DVC parameters of the stage of
the same name, so that a change to one section runs that stage and those after it again, and no other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from configs.loading import Section, load_model

Fraction = Annotated[float, Field(ge=0, le=1)]


class DataSection(Section):
    """Which dataset, and how bad it may be."""

    path: Path = Field(Path("data"), description="folder in YOLO layout, tracked by DVC as `<path>.dvc`")
    classes: tuple[str, ...] = Field(min_length=1, description="class names in label order")
    max_faulty: Fraction = Field(0.02, description="share of faulty files above which a run stops")

    @field_validator("classes")
    @classmethod
    def _different(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("class names must differ from each other")
        return names


class TrainSection(Section):
    """How the YOLOv5 detector is trained. Lengths in pixels, rates as in Ultralytics."""

    model: str = Field("yolov5n.yaml", description="a model yaml (from scratch) or a weights file (.pt) to start from")
    epochs: int = Field(7, ge=1, le=10_000)
    imgsz: int = Field(224, ge=32, le=4096, multiple_of=32, description="longer image side in training, pixels")
    batch: int = Field(8, ge=1, le=4096, description="images a step")
    nominal_batch: int = Field(8, ge=1, description="batch that the losses and weight decay are scaled to (nbs)")
    optimizer: Literal["SGD", "Adam", "AdamW", "auto"] = "AdamW"
    lr0: float = Field(0.003, gt=0, le=1, description="first learning rate")
    lrf: float = Field(0.05, gt=0, le=1, description="last learning rate as a share of lr0")
    momentum: Fraction = 0.937
    weight_decay: float = Field(0.0005, ge=0, le=1)
    warmup_epochs: float = Field(0.5, ge=0)
    cos_lr: bool = False
    mosaic: Fraction = 0.0
    close_mosaic: int = Field(0, ge=0, description="last epochs without mosaic")
    scale: Fraction = 0.2
    translate: Fraction = 0.05
    fliplr: Fraction = 0.5
    hsv_h: Fraction = 0.015
    hsv_s: Fraction = 0.7
    hsv_v: Fraction = 0.4
    patience: int = Field(100, ge=0, description="epochs without a better mAP before training stops, 0 for never")
    validate_every: int = Field(1, ge=1, description="epochs between two validations")
    seed: int = Field(0, ge=0, lt=2**32)
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    threads: int = Field(0, ge=0, description="CPU threads, 0 for one a core")
    workers: int = Field(-1, ge=-1, description="data loader processes, -1: none on a CPU, one a core on a GPU")
    cache: Literal["ram", "disk", "none"] = "ram"


class EvaluateSection(Section):
    """How the trained model is judged on the test split, and exported."""

    imgsz: int = Field(224, ge=32, le=4096, multiple_of=32)
    iou: Fraction = Field(0.7, description="overlap above which two boxes of a class are one")
    worst: int = Field(12, ge=0, description="worst images to show with boxes")
    parity_images: int = Field(32, ge=1, description="test images on which the exports must agree with the weights")


class DetectSection(Section):
    """What the trained model is shown on, and how."""

    source: Path | None = Field(
        None, description="a video or a folder of images; none: the dataset's own video, else its test images"
    )
    imgsz: int = Field(416, ge=32, le=4096, multiple_of=32, description="longer side of the network's input, pixels")
    conf: Fraction = Field(0.25, description="least confidence of a detection")
    iou: Fraction = Field(0.7, description="overlap above which two boxes of a class are one")
    qp: int = Field(26, ge=0, le=51, description="H.264 quantizer of the annotated video, 0 best to 51 smallest")
    precision: Literal["auto", "fp32"] = Field("auto", description="auto: bfloat16 where the CPU computes in it")


class PromoteSection(Section):
    """When a new model takes the champion's place."""

    metric: Literal["mAP50-95", "mAP50", "precision", "recall"] = "mAP50-95"
    margin: float = Field(0.0, ge=0, le=1, description="the challenger must be better by more than this")


class Recipe(Section):
    """A whole recipe file."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,60}$")] = Field(description="experiment and model name")
    data: DataSection
    train: TrainSection = TrainSection()
    evaluate: EvaluateSection = EvaluateSection()
    detect: DetectSection = DetectSection()
    promote: PromoteSection = PromoteSection()


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file.

    Raises:
        UserError: with every mistake in the file, each with line, key and what would be right.
    """
    return load_model(path, Recipe)
