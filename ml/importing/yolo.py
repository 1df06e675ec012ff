"""YOLO label files in the layouts they come in: ``images/train`` or, as Roboflow exports them, ``train/images``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from configs.problems import Problem, UserError
from ml.dataset.labels import Box, class_number, format_box, is_polygon, number, parse_labels
from ml.dataset.layout import IMAGE_SUFFIXES, class_names, files_below, read_yaml
from ml.importing.items import Item, Mapper, Source, split_named

_SPLIT_FOLDERS = ("train", "training", "val", "valid", "validation", "test")


@dataclass(frozen=True)
class _Folders:
    split: str
    images: Path
    labels: Path


def is_yolo(root: Path) -> bool:
    """True when ``root`` has image folders beside label folders."""
    return bool(_by_structure(root))


def read_yolo(root: Path, classes: Sequence[str], rename: Mapping[str, str]) -> Source:
    """Read all label files below ``root``.

    A line that is no box and no polygon keeps its text, apart from its class number, and a file that is no text keeps
    its bytes: validation names them later.

    Raises:
        UserError: nothing names the classes, a folder that the description names is missing, boxes have a class that
            the source or the recipe does not know; lists all of these.
    """
    where, names, values = _description(root)
    folders, problems = _folders(root, where, values)
    roboflow = bool(folders) and all(entry.images.name == "images" and entry.images.parent != root for entry in folders)
    source = Source("Roboflow" if roboflow else "YOLO")
    mapper = Mapper(dict(enumerate(names)), classes, rename)
    texts: list[tuple[Item, Path, str]] = []
    used: set[int] = set()
    for entry in folders:
        for item, label in _items(entry):
            source.items.append(item)
            if item.label is None:
                continue
            try:
                text = item.label.decode("utf-8-sig")
            except UnicodeDecodeError:
                continue
            texts.append((item, label, text))
            for line, words in enumerate(map(str.split, text.splitlines()), start=1):
                class_id = class_number(words[0]) if words else None
                if class_id is None:
                    continue
                if class_id in mapper.names:
                    used.add(class_id)
                else:
                    told = f"class {words[0]} is not among the {len(names)} that {where.name} names"
                    problems.append(Problem(f"{label}:{line}", told, f"it names: {', '.join(names)}"))
    problems += mapper.check(used, str(where))
    if problems:
        raise UserError(problems)
    for item, _, text in texts:
        item.label = _convert(text, mapper, source)
    source.classes = mapper.told(used)
    return source


def _description(root: Path) -> tuple[Path, tuple[str, ...], dict[str, Any]]:
    """The file that names the classes, the names, and what else it says."""
    reasons: list[Problem] = []
    files = [root / name for name in ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")]
    files += sorted(path for path in root.glob("*.y*ml") if path not in files)
    for path in files:
        if path.is_file():
            try:
                values = read_yaml(path)
                return path, class_names(values), values
            except ValueError as error:
                reasons.append(Problem(str(path), str(error), "name the classes in label order as `names`"))
    plain = root / "classes.txt"
    if plain.is_file():
        names = tuple(
            line.strip()
            for line in plain.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            if line.strip()
        )
        if names:
            return plain, names, {}
    missing = Problem(str(root), "nothing names the classes of the labels", "add a data.yaml with `names`")
    raise UserError(reasons or missing)


def _folders(root: Path, where: Path, values: dict[str, Any]) -> tuple[list[_Folders], list[Problem]]:
    """Image and label folder of each split: as the description says, else as the folders are called."""
    found: list[_Folders] = []
    problems: list[Problem] = []
    for key, given in values.items():
        split = split_named(str(key))
        if split is None or not given:
            continue
        for text in given if isinstance(given, list) else [given]:
            images = _named(root, str(values.get("path") or "."), str(text))
            if images is not None:
                found.append(_Folders(split, images, _labels(root, images)))
            elif split != "test":
                # Roboflow names a test folder even when it has exported none.
                told = f"`{key}: {text}` is no folder of the dataset"
                problems.append(Problem(str(where), told, "name folders of images, from the description's own folder"))
    return (found, problems) if found or problems else (_by_structure(root), [])


def _named(root: Path, base: str, text: str) -> Path | None:
    """The folder that a description means: from its own folder, or with one ``..`` too many, as Roboflow has it."""
    inside = PurePosixPath(*[part for part in PurePosixPath(text.replace("\\", "/")).parts if part not in ("..", "/")])
    for path in (root / base / text, root / text, root / base / inside, root / inside):
        resolved = path.resolve()
        if resolved.is_dir() and resolved != root.resolve() and resolved.is_relative_to(root.resolve()):
            return root / resolved.relative_to(root.resolve())
    return None


def _labels(root: Path, images: Path) -> Path:
    """The folder of labels beside that of images: the last ``images`` in its path replaced by ``labels``."""
    parts = list(images.relative_to(root).parts)
    for index in reversed(range(len(parts))):
        if parts[index] == "images":
            return root.joinpath(*parts[:index], "labels", *parts[index + 1 :])
    return images


def _by_structure(root: Path) -> list[_Folders]:
    found = []
    for word in _SPLIT_FOLDERS:
        for images in (root / "images" / word, root / word / "images"):
            if images.is_dir() and _labels(root, images).is_dir():
                found.append(_Folders(split_named(word) or word, images, _labels(root, images)))
    if not found and (root / "images").is_dir() and (root / "labels").is_dir():
        found.append(_Folders("train", root / "images", root / "labels"))
    return found


def _items(folders: _Folders) -> list[tuple[Item, Path]]:
    items: list[tuple[Item, Path]] = []
    taken: set[Path] = set()
    for image in files_below(folders.images):
        if image.suffix.lower() in IMAGE_SUFFIXES:
            relative = image.relative_to(folders.images)
            label = (folders.labels / relative).with_suffix(".txt")
            taken.add(label)
            text = label.read_bytes() if label.is_file() else None
            items.append((Item(folders.split, relative.as_posix(), image, text), label))
    for label in files_below(folders.labels):
        if label.suffix.lower() == ".txt" and label not in taken and label.name != "classes.txt":
            name = label.relative_to(folders.labels).as_posix()
            items.append((Item(folders.split, name, None, label.read_bytes()), label))
    return items


def _convert(text: str, mapper: Mapper, source: Source) -> bytes:
    lines: list[str] = []
    for line in text.splitlines():
        words = line.split()
        class_id = class_number(words[0]) if words else None
        if class_id is None:
            lines += [line] if words else []
            continue
        target = mapper.target(class_id)
        if target is None:
            source.dropped += 1
            continue
        mapped = " ".join([str(target), *words[1:]])
        box = _box(target, words[1:]) if is_polygon(words) else next(iter(parse_labels(mapped, target + 1).boxes), None)
        if box:
            source.boxes[target] += 1
            source.polygons += is_polygon(words)
        lines.append(format_box(box) if box else mapped)
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


def _box(class_id: int, words: list[str]) -> Box | None:
    """The box around a polygon's points; None when they are no numbers from 0 to 1."""
    values = [number(word) for word in words]
    shares = [value for value in values if value is not None and 0 <= value <= 1]
    if len(shares) < len(words):
        return None
    left, right, top, bottom = min(shares[::2]), max(shares[::2]), min(shares[1::2]), max(shares[1::2])
    return Box(class_id, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
