"""COCO JSON: ``annotations/*.json``, or ``_annotations.coco.json`` beside the images of each split (Roboflow)."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from configs.problems import Problem, UserError
from ml.dataset.images import FORMATS
from ml.dataset.labels import Box, format_box
from ml.dataset.layout import IMAGE_SUFFIXES, files_below
from ml.importing.items import Item, Mapper, Source, split_named

_SHOWN = 10


class _Part(BaseModel):
    """Only what is read here; COCO files hold much more."""

    model_config = ConfigDict(extra="ignore")


class _Image(_Part):
    id: int | str
    file_name: str
    width: float | None = None
    height: float | None = None


class _Category(_Part):
    id: int
    name: str


class _Annotation(_Part):
    image_id: int | str
    category_id: int
    bbox: list[float] = []
    segmentation: Any = None
    iscrowd: int = 0


class _File(_Part):
    images: list[_Image]
    annotations: list[_Annotation] = []
    categories: list[_Category]


def coco_files(root: Path) -> list[Path]:
    """The JSON files below ``root`` that may hold COCO annotations."""
    found = {*root.glob("annotations/*.json"), *root.glob("*.json"), *root.glob("*/_annotations.coco.json")}
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def read_coco(root: Path, classes: Sequence[str], rename: Mapping[str, str]) -> Source:
    """Read all COCO files below ``root``. Boxes come out as shares of the size that the file states.

    Crowd regions (``iscrowd``) are left out, as they are no single object. An annotation without a box takes that of
    its polygon. Images that no file lists come out without a label, so that validation names them.

    Raises:
        UserError: a file is no COCO, names an image that is not there or has another size, a box has no four finite
            numbers, a class is unknown; lists all of these.
    """
    source = Source("COCO")
    images = [path for path in files_below(root) if path.suffix.lower() in IMAGE_SUFFIXES]
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in images:
        by_name[path.name].append(path)
    listed: set[Path] = set()
    problems: list[Problem] = []
    told: dict[str, str] = {}
    for path in coco_files(root):
        parsed = _parse(path)
        if isinstance(parsed, Problem):
            problems.append(parsed)
            continue
        split = _split_of(path, root)
        mapper = Mapper({category.id: category.name for category in parsed.categories}, classes, rename)
        used = {annotation.category_id for annotation in parsed.annotations}
        nameless = sorted(used - set(mapper.names))
        problems += [Problem(str(path), f"no category has the id {number}", "add it") for number in nameless]
        found = mapper.check(used & set(mapper.names), str(path))
        problems += found
        if found or nameless:
            continue
        told |= mapper.told(used)
        problems += _read(path, parsed, split, mapper, by_name, listed, source)
    if problems:
        raise UserError(problems)
    source.classes = told
    splits = {item.image.parent: item.split for item in source.items if item.image}
    for image in images:
        if image not in listed:
            source.items.append(Item(splits.get(image.parent, "train"), image.name, image, None))
    return source


def _parse(path: Path) -> _File | Problem:
    remedy = "give COCO: images, annotations, categories"
    try:
        return _File.model_validate(json.loads(path.read_text(encoding="utf-8-sig")))
    except ValidationError as error:
        details = error.errors()
        places = [f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in details[:_SHOWN]]
        more = f" and {len(details) - _SHOWN} more" if len(details) > _SHOWN else ""
        return Problem(str(path), f"is no COCO file: {'; '.join(places)}{more}", remedy)
    except (ValueError, OSError, RecursionError) as error:
        return Problem(str(path), f"cannot be read: {error}", remedy)


def _split_of(path: Path, root: Path) -> str:
    """By the folder (``valid/_annotations.coco.json``) or the name (``instances_val2017.json``); else train."""
    words = [path.parent.name] if path.parent != root else []
    words += re.split(r"[^a-zA-Z]+", path.stem)
    return next(filter(None, map(split_named, words)), "train")


def _read(
    path: Path,
    parsed: _File,
    split: str,
    mapper: Mapper,
    by_name: dict[str, list[Path]],
    listed: set[Path],
    source: Source,
) -> list[Problem]:
    problems: list[Problem] = []
    boxes: dict[int | str, list[_Annotation]] = defaultdict(list)
    for annotation in parsed.annotations:
        boxes[annotation.image_id].append(annotation)
    for stray in sorted(set(boxes) - {image.id for image in parsed.images}, key=str):
        problems.append(Problem(str(path), f"annotations belong to image {stray}, which is not listed", "list it"))
    for image in parsed.images:
        where = f"{path} image {image.file_name!r}"
        try:
            file = _find(image.file_name, path, split, by_name)
            width, height = _size(image, file)
            lines = [_line(annotation, width, height, mapper, source) for annotation in boxes[image.id]]
        except ValueError as error:
            problems.append(Problem(where, str(error), "mend the COCO file, or the image"))
            continue
        if file in listed:
            problems.append(Problem(where, "is listed twice", "list each image once, in one split"))
        listed.add(file)
        text = "".join(f"{line}\n" for line in lines if line)
        source.items.append(Item(split, image.file_name, file, text.encode("utf-8")))
    return problems


def _find(name: str, path: Path, split: str, by_name: dict[str, list[Path]]) -> Path:
    """The image that ``name`` means: the only file of that name, else the one in the folder of its split."""
    parts = tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
    if ".." in parts or not parts:
        raise ValueError("has a name that is no file of the dataset")
    found = [file for file in by_name.get(parts[-1], []) if file.parts[-len(parts) :] == parts]
    if len(found) > 1:
        beside = path.parent.joinpath(*parts)
        near = [file for file in found if file == beside]
        near = near or [file for file in found if any(_names(part, split) for part in file.parts[:-1])]
        found = near or found
    if not found:
        raise ValueError("there is no such image (.jpg, .png, .bmp or .webp)")
    if len(found) > 1:
        raise ValueError(f"fits {len(found)} files: {', '.join(map(str, found[:3]))}")
    return found[0]


def _names(folder: str, split: str) -> bool:
    return any(split_named(word) == split for word in re.split(r"[^a-zA-Z]+", folder))


def _size(image: _Image, file: Path) -> tuple[float, float]:
    """The size in pixels that boxes refer to; a file whose header cannot be read is left to validation."""
    stated = (image.width, image.height)
    real: tuple[int, int] | None = None
    upright: tuple[int, int] | None = None
    try:
        with Image.open(file, formats=FORMATS) as opened:
            real = opened.size
            upright = (opened.height, opened.width) if opened.getexif().get(0x0112, 1) >= 5 else real
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        pass
    if stated[0] and stated[1]:
        if real and stated not in (real, upright):
            raise ValueError(f"is stated as {stated[0]:g} x {stated[1]:g} pixels, but has {real[0]} x {real[1]}")
        return stated[0], stated[1]
    if upright is None:
        raise ValueError("has no stated size and cannot be read")
    return upright


def _line(annotation: _Annotation, width: float, height: float, mapper: Mapper, source: Source) -> str:
    """The label line of an annotation, empty when it is left out."""
    target = mapper.target(annotation.category_id)
    if target is None:
        source.dropped += 1
        return ""
    if annotation.iscrowd:
        source.crowds += 1
        return ""
    corner = annotation.bbox
    if not corner:
        corner = _around(annotation.segmentation)
        source.polygons += 1
    if len(corner) != 4 or not all(map(math.isfinite, corner)):
        raise ValueError(f"has a box {annotation.bbox!r} instead of [x, y, width, height]")
    left, top, wide, high = corner
    source.boxes[target] += 1
    return format_box(Box(target, (left + wide / 2) / width, (top + high / 2) / height, wide / width, high / height))


def _around(segmentation: Any) -> list[float]:
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("has an annotation with neither a box nor a polygon")
    values = [value for polygon in segmentation for value in polygon] if isinstance(segmentation[0], list) else []
    if len(values) < 6 or len(values) % 2 or not all(isinstance(value, (int, float)) for value in values):
        raise ValueError("has an annotation whose polygon has fewer than three points")
    left, top = min(values[::2]), min(values[1::2])
    return [left, top, max(values[::2]) - left, max(values[1::2]) - top]
