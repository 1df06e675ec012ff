"""What a training depends on, checked and hashed before anything heavy is imported."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.metadata import version
from pathlib import Path

from configs.problems import Problem, UserError
from configs.recipe import Recipe

_SPLITS = ("train", "val")
_SHIPPED_YAML = re.compile(r"(yolov5[nsmlx](?:6|-p6)?)u?\.yaml")
_HUB_WEIGHTS = re.compile(r"(yolov5[nsmlx]6?)u?\.pt")


def check_data(root: Path) -> None:
    """Are there images to train on and to judge by?

    Raises:
        UserError: a split is missing or empty; lists every one.
    """
    problems = []
    for split in _SPLITS:
        folder = root / "images" / split
        if not folder.is_dir():
            problems.append(Problem(str(folder), "there is no such folder", "see `data.path`; fetch it: dvc pull"))
        elif not any(path.is_file() for path in folder.rglob("*")):
            problems.append(Problem(str(folder), "holds no images", "put the split's images there"))
    if problems:
        raise UserError(problems)


def digest(root: Path) -> str:
    """SHA-256 of the names and contents of the train and val splits' images and labels."""
    total = hashlib.sha256()
    for kind in ("images", "labels"):
        for split in _SPLITS:
            for path in sorted(path for path in (root / kind / split).rglob("*") if path.is_file()):
                content = path.read_bytes()
                total.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
                total.update(content)
    return total.hexdigest()


def key(recipe: Recipe, model: str, data: str) -> str:
    """Name of the training: the same for the same recipe, classes, data, starting weights and library versions."""
    file = Path(model)
    parts = {
        "train": recipe.train.model_dump(mode="json"),
        "classes": recipe.data.classes,
        "data": data,
        "model": hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else model,
        "versions": [version("ultralytics"), version("torch")],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def resolve_model(name: str, weights: Path) -> str:
    """The file or the Ultralytics model that ``train.model`` names; hub weights are downloaded if not there yet.

    Args:
        name: as in the recipe.
        weights: folder that hub weights are kept in.

    Raises:
        UserError: there is no such file, it is no YOLOv5 model, or the download failed.
    """
    if Path(name).is_file():
        return str(Path(name).absolute())
    if shipped := _SHIPPED_YAML.fullmatch(name):
        return f"{shipped[1]}.yaml"
    if hub := _HUB_WEIGHTS.fullmatch(name):
        return _download(f"{hub[1]}u.pt", weights)
    raise UserError(
        Problem(
            "train.model",
            f"is {name}, which is no file and no YOLOv5 model of Ultralytics",
            "use yolov5n.yaml (or s, m, l, x), a path to a model yaml, or a path to a weights file (.pt)",
        )
    )


def _download(name: str, weights: Path) -> str:
    target = weights / name
    if not target.is_file():
        from ultralytics.utils.downloads import attempt_download_asset

        weights.mkdir(parents=True, exist_ok=True)
        try:
            attempt_download_asset(str(target))
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(_not_downloaded(name, target, reason)) from None
        if not target.is_file():
            raise UserError(_not_downloaded(name, target, "nothing came"))
    return str(target.absolute())


def _not_downloaded(name: str, target: Path, reason: str) -> Problem:
    remedy = f"connect this machine, or put the file at {target}, or train from scratch with {name[:7]}.yaml"
    return Problem("train.model", f"{name} could not be downloaded: {reason}", remedy)
