"""Builds the normalised dataset beside its target and puts it in place as a whole."""

from __future__ import annotations

import re
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from configs.problems import Problem, UserError
from ml.dataset.layout import SPLITS, write_dataset_yaml
from ml.importing.coco import coco_files, read_coco
from ml.importing.items import Item, Source
from ml.importing.splits import fill_splits, groups_of, join_groups
from ml.importing.summary import ImportSummary
from ml.importing.unpack import MAX_BYTES, check_folder, content_root, unpack
from ml.importing.yolo import is_yolo, read_yolo

_UNSAFE = re.compile(r'[<>:"|?*\\\x00-\x1f\ud800-\udfff]')
_LAYOUTS = "YOLO (images/train, labels/train), Roboflow (train/images, train/labels) or COCO (annotations/*.json)"


def import_dataset(
    source: Path,
    target: Path,
    classes: tuple[str, ...],
    *,
    rename: Mapping[str, str] | None = None,
    regroup: bool = True,
    seed: int = 0,
    max_bytes: int = MAX_BYTES,
) -> ImportSummary:
    """Write the dataset in ``source`` to ``target`` in this project's YOLO layout.

    The source is a folder or a zip in YOLO, Roboflow or COCO layout and stays as it is. Images keep their bytes,
    labels become ``class cx cy w h`` with six decimals and the recipe's class numbers. Faulty images and lines are
    carried over, so that validation lists them.

    No image may judge a model that has seen its original. Groups of images from one original (Roboflow's augmented
    versions, exact copies) that the source has in two splits therefore go whole to the earliest of them: train, else
    val. No image is lost, and val and test keep only originals that are nowhere else. Every such image is listed in
    the summary. Missing splits are made from whole groups: test from half of val, else val and test from a tenth of
    train each.

    Args:
        source: folder or zip.
        target: a folder that does not exist yet, or is empty.
        classes: the recipe's class names in label order; the source's are matched by name, without regard to case.
        rename: class name of the source to that of the recipe, ``""`` to leave its boxes out.
        regroup: False leaves groups where the source has them; the summary lists the leaks.
        seed: decides which groups make up a missing split.
        max_bytes: how large a zip may be unpacked.

    Raises:
        UserError: the layout, a class, a path or an archive member cannot be understood or trusted; lists everything.
    """
    _check_places(source, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        temporary = Path(folder)
        if source.is_dir():
            if problems := check_folder(source):
                raise UserError(problems)
            root = content_root(source)
        else:
            unpacked = temporary / "source"
            unpacked.mkdir()
            root = content_root(unpack(source, unpacked, max_bytes))
        try:
            found = _read(root, source, classes, rename or {})
            groups = groups_of(found.items)
            leaks = join_groups(found.items, groups, regroup)
            notes = [*found.notes, *fill_splits(found.items, groups, seed)]
            built = temporary / "target"
            notes += _write(found.items, built, owned=root.is_relative_to(temporary))
        except UserError as error:
            raise _told_from(error, root, source) from None
        except OSError as error:
            told = f"cannot be read or written: {error.strerror}"
            raise UserError(
                Problem(str(error.filename or target), told, "mind the rights and room on the disk")
            ) from None
        write_dataset_yaml(built, classes)
        for path in sorted(root.iterdir()):
            if path.is_file() and path.stem.upper().startswith(("README", "LICENSE", "LICENCE")):
                shutil.copyfile(path, built / path.name)
        if target.exists():
            target.rmdir()
        built.rename(target)
    images = Counter(item.split for item in found.items if item.image)
    return ImportSummary(
        layout=found.layout,
        images={split: images[split] for split in SPLITS},
        boxes={name: found.boxes[number] for number, name in enumerate(classes)},
        classes=found.classes,
        polygons=found.polygons,
        crowds=found.crowds,
        dropped=found.dropped,
        leaks=tuple(leaks),
        notes=tuple(notes),
    )


def _check_places(source: Path, target: Path) -> None:
    problems = []
    if not source.exists():
        problems.append(Problem(str(source), "there is no such folder or file", "give a folder or a zip file"))
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        problems.append(Problem(str(target), "is there already", "name a new folder"))
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        problems.append(Problem(str(target), "lies in the source", "name a folder outside of it"))
    if problems:
        raise UserError(problems)


def _read(root: Path, source: Path, classes: Sequence[str], rename: Mapping[str, str]) -> Source:
    if is_yolo(root):
        found = read_yolo(root, classes, rename)
    elif coco_files(root):
        found = read_coco(root, classes, rename)
    else:
        inside = sorted(path.name for path in root.iterdir())[:8]
        told = f"is in no layout known here (it holds {', '.join(inside) or 'nothing'})"
        raise UserError(Problem(str(source), told, f"known are {_LAYOUTS}"))
    if not any(item.image for item in found.items):
        raise UserError(Problem(str(source), "holds no images", "give .jpg, .jpeg, .png, .bmp or .webp files"))
    return found


def _write(items: Sequence[Item], built: Path, owned: bool) -> list[str]:
    """Write images and labels below ``built``; images are moved when they are ``owned`` (unpacked here), else copied.

    Returns which files got another name, in words.
    """
    notes: list[str] = []
    for split in SPLITS:
        for kind in ("images", "labels"):
            (built / kind / split).mkdir(parents=True)
    taken: dict[str, set[str]] = {split: set() for split in SPLITS}
    for item in sorted(items, key=lambda item: (item.split, item.name, str(item.image))):
        stem, suffix = _safe_name(item.name)
        unique, number = stem, 1
        while unicodedata.normalize("NFC", unique).casefold() in taken[item.split]:
            number += 1
            unique = f"{stem}-{number}"
        taken[item.split].add(unicodedata.normalize("NFC", unique).casefold())
        if unique + suffix != item.name:
            notes.append(f"renamed: {item.split}/{item.name} -> {unique}{suffix}")
        if item.image is not None:
            place = built / "images" / item.split / (unique + suffix)
            if owned:
                item.image.rename(place)
            else:
                shutil.copyfile(item.image, place)
        if item.label is not None:
            (built / "labels" / item.split / f"{unique}.txt").write_bytes(item.label)
    return notes


def _safe_name(name: str) -> tuple[str, str]:
    """Stem and suffix for a file in one flat folder that every file system and a Samba share can hold."""
    path = PurePosixPath(name.replace("\\", "/"))
    parts = [part for part in path.with_suffix("").parts if part not in ("/", "..")]
    stem = unicodedata.normalize("NFC", _UNSAFE.sub("_", "_".join(parts))).strip(" .") or "image"
    while len(stem.encode("utf-8")) > 200:
        stem = stem[:-1]
    return stem, path.suffix.lower()


def _told_from(error: UserError, root: Path, source: Path) -> UserError:
    """The same problems with the user's own path instead of the folder that the archive was unpacked to."""
    if source.is_dir():
        return error
    return UserError(
        Problem(
            problem.where.replace(str(root), str(source)),
            problem.what.replace(f"{root}/", ""),
            problem.remedy.replace(f"{root}/", ""),
        )
        for problem in error.problems
    )
