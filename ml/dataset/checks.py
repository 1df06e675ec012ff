"""Looks at every file of a dataset and collects what is wrong with it. Nothing is changed."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ml.dataset.copies import Copy, find_copies
from ml.dataset.faults import Fault
from ml.dataset.images import Picture, PictureError, misnamed, read_picture
from ml.dataset.labels import Labels, parse_labels
from ml.dataset.layout import (
    DATASET_YAML,
    IMAGE_SUFFIXES,
    SPLITS,
    Dataset,
    Sample,
    class_names,
    files_below,
    name_in,
    read_yaml,
)

_PICTURE_SUFFIXES = frozenset({".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jfif", ".tga", ".ppm"})
_KINDS = {"exact": "the same bytes", "near": "the same picture encoded again, by perceptual hash"}
_EDGE_SHARE = 0.01


@dataclass(frozen=True)
class Look:
    """What was seen of one sample: its decoded image and its labels, None where they cannot be read."""

    sample: Sample
    picture: Picture | None
    labels: Labels | None
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Inspection:
    """What was seen of a dataset: a look for each sample, in its order, and all faults, sorted."""

    dataset: Dataset
    looks: tuple[Look, ...]
    faults: tuple[Fault, ...]


def inspect(dataset: Dataset, progress: Callable[[int], None] = lambda done: None) -> Inspection:
    """Decode every image and read every label of ``dataset``, on all cores.

    Args:
        dataset: as ``open_dataset`` lists it.
        progress: called after each sample with how many are done.
    """
    looks: list[Look] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for look in pool.map(lambda sample: _look(dataset, sample), dataset.samples):
            looks.append(look)
            progress(len(looks))
    faults = [fault for look in looks for fault in look.faults]
    faults += [*_description(dataset), *_splits(dataset, looks), *_files(dataset), *_copies(dataset, looks)]
    return Inspection(dataset, tuple(looks), tuple(sorted(set(faults))))


def _look(dataset: Dataset, sample: Sample) -> Look:
    image, label = name_in(dataset.root, sample.image), name_in(dataset.root, sample.label)
    faults: list[Fault] = []
    picture: Picture | None = None
    try:
        picture = read_picture(sample.image)
    except PictureError as error:
        faults.append(Fault(image, 0, error.kind, error.reason))
    else:
        if reason := misnamed(sample.image, picture):
            faults.append(Fault(image, 0, "image-misnamed", reason))
    labels: Labels | None = None
    try:
        labels = parse_labels(sample.label.read_bytes().decode("utf-8"), len(dataset.classes))
    except FileNotFoundError:
        faults.append(Fault(image, 0, "label-missing", f"has no label file {label}"))
    except UnicodeDecodeError as error:
        faults.append(Fault(label, 0, "label-encoding", f"is no UTF-8 text: byte {error.start + 1} is not"))
    except OSError as error:
        faults.append(Fault(label, 0, "label-encoding", f"cannot be read: {error.strerror}"))
    else:
        faults += [Fault(label, fault.line, fault.kind, fault.reason) for fault in labels.faults]
        faults += [Fault(label, line, kind, reason) for line, kind, reason in _boxes(labels, picture)]
    return Look(sample, picture, labels, tuple(faults))


def _boxes(labels: Labels, picture: Picture | None) -> Iterator[tuple[int, str, str]]:
    """Line, kind and reason of what is wrong with boxes that read well."""
    seen: dict[object, int] = {}
    for line, box in zip(labels.lines, labels.boxes, strict=True):
        first = seen.setdefault(box, line)
        if first != line:
            yield line, "box-duplicate", f"is the same box as line {first}"
        if picture is None:
            continue
        width, height = box.w * picture.width, box.h * picture.height
        if min(width, height) < 1:
            yield line, "box-subpixel", f"the box is {width:.2f} x {height:.2f} pixels"
        left, top, right, bottom = box.corners
        beyond_x, beyond_y = max(-left, right - 1, 0), max(-top, bottom - 1, 0)
        pixels = max(beyond_x * picture.width, beyond_y * picture.height)
        # Up to a pixel is rounding. Up to a hundredth of the side is careless drawing, more is another meaning.
        if pixels > 1:
            kind = "box-outside" if max(beyond_x, beyond_y) > _EDGE_SHARE else "box-edge"
            yield line, kind, f"the box leaves the image by {pixels:.1f} pixels"


def _description(dataset: Dataset) -> Iterator[Fault]:
    try:
        values = read_yaml(dataset.root / DATASET_YAML)
        names = class_names(values)
    except ValueError as error:
        yield Fault(DATASET_YAML, 0, "dataset-yaml", str(error))
        return
    if names != dataset.classes:
        told = f"names {', '.join(names)}, but the classes asked for are {', '.join(dataset.classes)}"
        yield Fault(DATASET_YAML, 0, "dataset-classes", told)
    for split in SPLITS:
        given = values.get(split)
        base = dataset.root / str(values.get("path") or ".")
        if not isinstance(given, str) or (base / given).resolve() != (dataset.root / "images" / split).resolve():
            yield Fault(DATASET_YAML, 0, "dataset-yaml", f"`{split}` is {given!r}, not 'images/{split}'")


def _splits(dataset: Dataset, looks: Iterable[Look]) -> Iterator[Fault]:
    seen: dict[str, set[int]] = defaultdict(set)
    for look in looks:
        if look.labels:
            seen[look.sample.split].update(box.class_id for box in look.labels.boxes)
    for split in SPLITS:
        folder = dataset.root / "images" / split
        if not dataset.split(split):
            reason = "has no image" if folder.is_dir() else "is missing"
            yield Fault(f"images/{split}", 0, "split-empty", reason)
            continue
        for class_id, name in enumerate(dataset.classes):
            if class_id not in seen[split]:
                yield Fault(f"labels/{split}", 0, "class-missing", f"no box of class {name}")


def _files(dataset: Dataset) -> Iterator[Fault]:
    """Files that belong to nothing, and names that get into each other's way."""
    wanted = {sample.label for sample in dataset.samples}
    for split in SPLITS:
        names: dict[str, str] = {}
        labels: dict[Path, str] = {}
        for path in files_below(dataset.root / "images" / split):
            relative = name_in(dataset.root, path)
            suffix = path.suffix.lower()
            if suffix not in IMAGE_SUFFIXES:
                if suffix in _PICTURE_SUFFIXES:
                    yield Fault(relative, 0, "image-extension", f"ends in {path.suffix}")
                else:
                    yield Fault(relative, 0, "file-foreign", "is no image")
                continue
            other = names.setdefault(unicodedata.normalize("NFC", relative).casefold(), relative)
            if other != relative:
                yield Fault(relative, 0, "name-collision", f"differs from {other} in upper and lower case only")
            other = labels.setdefault(path.with_suffix(""), relative)
            if other != relative:
                yield Fault(relative, 0, "label-shared", f"has the same label file as {other}")
        for path in files_below(dataset.root / "labels" / split):
            if path in wanted:
                continue
            if path.suffix == ".txt":
                yield Fault(name_in(dataset.root, path), 0, "label-orphan", "has no image")
            elif path.suffix.lower() == ".txt":
                told = f"ends in {path.suffix}, but training reads .txt"
                yield Fault(name_in(dataset.root, path), 0, "label-orphan", told)


def _copies(dataset: Dataset, looks: list[Look]) -> Iterator[Fault]:
    found: list[Copy] = find_copies([look.sample.split for look in looks], [look.picture for look in looks])
    for copy in found:
        image, other = (name_in(dataset.root, looks[index].sample.image) for index in (copy.index, copy.of))
        kind = f"{'leak' if copy.leak else 'duplicate'}-{copy.method}"
        yield Fault(image, 0, kind, f"is a copy of {other} ({_KINDS[copy.method]})")
