"""The folder layout: ``images/{train,val,test}``, ``labels/{train,val,test}`` and ``dataset.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from configs.problems import Problem, UserError

SPLITS = ("train", "val", "test")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
DATASET_YAML = "dataset.yaml"


@dataclass(frozen=True, order=True)
class Sample:
    """An image and where its label file belongs (which need not exist)."""

    split: str
    image: Path
    label: Path


@dataclass(frozen=True)
class Dataset:
    """A dataset's folder, its class names in label order, and its samples sorted by split (as ``SPLITS``) and name."""

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of split ``name``."""
        return tuple(sample for sample in self.samples if sample.split == name)


def open_dataset(root: Path, classes: Sequence[str] | None = None) -> Dataset:
    """List the dataset below ``root``; only file names and ``dataset.yaml`` are read.

    Args:
        root: folder in YOLO layout.
        classes: class names in label order; none: those of ``dataset.yaml``.

    Raises:
        UserError: there is no such folder, it has no ``images/``, or nothing tells the class names.
    """
    if not root.is_dir():
        raise UserError(Problem(str(root), "is no folder", "give the folder of a dataset"))
    if not (root / "images").is_dir():
        raise UserError(
            Problem(
                str(root),
                "has no folder `images`, so it is not in YOLO layout",
                "give images/{train,val,test} and labels/{train,val,test}, or import it: python -m ml.importing",
            )
        )
    if classes is None:
        try:
            classes = read_class_names(root / DATASET_YAML)
        except ValueError as error:
            raise UserError(
                Problem(str(root / DATASET_YAML), str(error), "name the classes there, or with --classes")
            ) from None
    samples = [
        Sample(split, image, label_path(root, image))
        for split in SPLITS
        for image in files_below(root / "images" / split)
        if image.suffix.lower() in IMAGE_SUFFIXES
    ]
    return Dataset(root, tuple(classes), tuple(samples))


def label_path(root: Path, image: Path) -> Path:
    """``labels/<split>/<name>.txt`` of ``images/<split>/<name>.<suffix>``."""
    return root / "labels" / image.relative_to(root / "images").with_suffix(".txt")


def name_in(root: Path, path: Path) -> str:
    """``path`` from ``root`` with forward slashes; bytes of its name that are no UTF-8 stand as ``\\udcff``."""
    return path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode("utf-8")


def files_below(folder: Path) -> list[Path]:
    """All files below ``folder`` in a fixed order, without hidden ones (``.DS_Store``); none if it is missing."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def read_yaml(path: Path) -> dict[str, Any]:
    """A dataset description as plain values.

    Raises:
        ValueError: with the reason, when it is missing or holds no keys.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError("is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f"is no valid YAML{f' in line {mark.line + 1}' if mark else ''}") from None
    if not isinstance(values, dict):
        raise ValueError("holds no keys")
    return values


def class_names(values: dict[str, Any]) -> tuple[str, ...]:
    """The ``names`` of a dataset description, given as a list or as a mapping of numbers from 0.

    Raises:
        ValueError: with the reason, when they are missing or not numbered from 0 without a gap.
    """
    names = values.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise ValueError(f"`names` must be numbered from 0 without a gap, not {', '.join(map(str, names))}")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError("has no `names`")
    return tuple(str(name) for name in names)


def read_class_names(path: Path) -> tuple[str, ...]:
    """The class names of ``dataset.yaml`` in label order.

    Raises:
        ValueError: with the reason, when the file is missing or names no classes.
    """
    return class_names(read_yaml(path))


def write_dataset_yaml(root: Path, classes: Sequence[str]) -> Path:
    """Write ``dataset.yaml`` in Ultralytics' form, with paths from its own folder."""
    values = {"path": ".", **{split: f"images/{split}" for split in SPLITS}, "names": dict(enumerate(classes))}
    path = root / DATASET_YAML
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path
