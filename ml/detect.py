"""Stage ``detect``: the exported model on a video or a folder of images.

As a stage, with the source and the settings of the recipe::

    python -m ml.detect --recipe configs/forklift.yaml

By hand, on any videos and folders of images::

    python -m ml.detect SOURCE [SOURCE ...] --model models/openvino --out reports/detect
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pydantic import ValidationError

from configs.problems import Problem, UserError, run_main
from configs.recipe import DetectSection, load_recipe
from ml.detection.detecting import Summary, detect
from ml.events import Events
from ml.inputs import inputs_held

MODEL = Path("models/openvino")
OUT = Path("reports/detect")
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm")


def main(arguments: list[str] | None = None) -> None:
    """Detect as the command line says; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m ml.detect", description="An exported model on videos and images.")
    parser.add_argument("sources", nargs="*", type=Path, metavar="SOURCE", help="a video or a folder of images")
    parser.add_argument("--recipe", type=Path, help="take source and settings from this recipe")
    parser.add_argument("--model", type=Path, default=MODEL, help=f"folder of the exported model (default {MODEL})")
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder of the results (default {OUT})")
    parser.add_argument("--imgsz", type=int, help="longer side of the network's input, pixels")
    parser.add_argument("--conf", type=float, help="least confidence of a detection")
    parser.add_argument("--iou", type=float, help="overlap above which two boxes of a class are one")
    parser.add_argument("--qp", type=int, help="quantizer of the annotated video, 0 best to 51 smallest")
    options = parser.parse_args(arguments)
    with inputs_held("detect", options.recipe):
        _detect(options)


def _detect(options: argparse.Namespace) -> None:
    recipe = load_recipe(options.recipe) if options.recipe else None
    settings = _override(recipe.detect if recipe else DetectSection(), options)
    sources = options.sources or ([settings.source or own_source(recipe.data.path)] if recipe else [])
    summary = detect(sources, options.model, options.out, settings, Events("detect"))
    print(_table(summary))
    print(f"results: {options.out}")


def own_source(data: Path) -> Path:
    """Return what a dataset itself has to be shown on: its first video, else the images of its test split."""
    videos = sorted(path for path in (data / "video").glob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    return videos[0] if videos else data / "images" / "test"


def _override(settings: DetectSection, options: argparse.Namespace) -> DetectSection:
    given = {key: getattr(options, key) for key in ("imgsz", "conf", "iou", "qp") if getattr(options, key) is not None}
    try:
        return DetectSection.model_validate({**settings.model_dump(), **given})
    except ValidationError as error:
        problems = [Problem(f"--{item['loc'][0]}", f"is {item['input']!r}", item["msg"]) for item in error.errors()]
        raise UserError(problems) from None


def _table(summary: Summary) -> str:
    lines = []
    for source in summary.sources:
        boxes = ", ".join(f"{count} {name}" for name, count in source.boxes.items())
        line = f"{source.source}: {source.frames} {'frames' if source.kind == 'video' else 'images'}, boxes: {boxes}"
        if source.accuracy:
            line += f"; precision {source.accuracy['precision']}, recall {source.accuracy['recall']}"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
