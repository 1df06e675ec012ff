"""Labels are read without ever raising, datasets are listed in a fixed order, copies are told from look-alikes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making_datasets import BOTH, CLASSES, add, scene, sound
from PIL import Image, ImageDraw

from configs.problems import UserError
from ml.dataset import Box, format_box, open_dataset, parse_labels, read_class_names
from ml.dataset.copies import find_copies
from ml.dataset.faults import KINDS
from ml.dataset.images import Picture, read_picture

share = st.integers(0, 1_000_000).map(lambda millionths: millionths / 1_000_000)
side = st.integers(1, 1_000_000).map(lambda millionths: millionths / 1_000_000)
boxes = st.builds(Box, st.integers(0, 9), share, share, side, side)
label_like = st.text("0123456789.-+eE naif\n\t_\ufeff٣", max_size=80)


@given(st.one_of(st.text(), label_like), st.integers(1, 5))
def test_any_text_reads_as_boxes_and_named_faults(text: str, classes: int) -> None:
    labels = parse_labels(text, classes)
    lines = text.splitlines()
    told = sorted([*labels.lines, *(fault.line for fault in labels.faults)])
    assert told == [number for number, line in enumerate(lines, start=1) if line.split()]
    assert all(fault.kind in KINDS for fault in labels.faults)
    for box in labels.boxes:
        assert 0 <= box.class_id < classes
        assert all(0 <= value <= 1 for value in (box.cx, box.cy, box.w, box.h))
        assert box.w > 0
        assert box.h > 0


@given(st.lists(boxes))
def test_good_boxes_survive_writing_and_reading(given_boxes: list[Box]) -> None:
    labels = parse_labels("".join(f"{format_box(box)}\n" for box in given_boxes), 10)
    assert labels.boxes == tuple(given_boxes)
    assert not labels.faults


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        ("0 .5 .5 .1", "label-columns", "4 columns"),
        ("0 .5 .5 .1 .1 .9", "label-columns", "6 columns"),
        ("0 .1 .1 .2 .1 .2 .2", "label-polygon", "3 points"),
        ("0 .5 half .1 .1", "label-number", "'half'"),
        ("0 nan .5 .1 .1", "label-number", "'nan'"),
        ("0 .5 .5 inf .1", "label-number", "'inf'"),
        ("0 .5 .5 1e999 .1", "label-number", "'1e999'"),
        ("0 .5 .5 1_0 .1", "label-number", "'1_0'"),
        ("2 .5 .5 .1 .1", "label-class", "classes are 0 to 1"),
        ("-1 .5 .5 .1 .1", "label-class", "'-1'"),
        ("0.5 .5 .5 .1 .1", "label-class", "'0.5'"),
        ("0 1.5 .5 -.1 .1", "label-range", "cx is 1.5, width is -0.1"),
        ("0 .5 .5 0 .1", "box-zero", "no area"),
        ("\ufeff0 .5 .5 .1 .1", "label-encoding", "byte order mark"),
    ],
)
def test_each_fault_of_a_line_is_named(line: str, kind: str, said: str) -> None:
    labels = parse_labels(f"0 .5 .5 .1 .1\n\n{line}\n", 2)
    assert labels.boxes == (Box(0, 0.5, 0.5, 0.1, 0.1),)
    (fault,) = labels.faults
    assert (fault.line, fault.kind) == (3, kind)
    assert said in fault.reason


def test_a_dataset_lists_odd_names_in_a_fixed_order(tmp_path: Path) -> None:
    sound(tmp_path)
    for name in ("zwei Gabeln.JPG", "вилка.jpeg", "cam1/0001.webp", "flat.bmp"):
        add(tmp_path, "train", name, 7)
    (tmp_path / "images/train/.DS_Store").write_bytes(b"x")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == CLASSES
    names = [sample.image.relative_to(tmp_path).as_posix() for sample in dataset.samples]
    assert names[:8] == [
        f"images/train/{name}"
        for name in (
            "cam1/0001.webp",
            "flat.bmp",
            *(f"t{number}.jpg" for number in range(4)),
            "zwei Gabeln.JPG",
            "вилка.jpeg",
        )
    ]
    assert [sample.split for sample in dataset.samples] == ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    assert all(sample.label.read_text() == BOTH for sample in dataset.samples)


def test_class_names_are_read_as_list_or_mapping(tmp_path: Path) -> None:
    path = tmp_path / "dataset.yaml"
    path.write_text("names: [forklift, person]")
    assert read_class_names(path) == CLASSES
    path.write_text("names: {1: person, 0: forklift}")
    assert read_class_names(path) == CLASSES
    path.write_text("names: {1: forklift, 2: person}")
    with pytest.raises(ValueError, match="numbered from 0"):
        read_class_names(path)


@pytest.mark.parametrize("make", [lambda root: None, lambda root: (root / "train/images").mkdir(parents=True)])
def test_a_folder_that_is_no_dataset_says_what_it_needs(tmp_path: Path, make: object) -> None:
    make(tmp_path)  # type: ignore[operator]
    with pytest.raises(UserError, match=r"images/\{train,val,test\}"):
        open_dataset(tmp_path)


def _copies(folder: Path, *images: tuple[str, Image.Image, dict[str, int]]) -> list[tuple[int, int, str, bool]]:
    pictures: list[Picture | None] = []
    for number, (_, image, options) in enumerate(images):
        path = folder / f"{number}.jpg"
        image.save(path, **options)
        pictures.append(read_picture(path))
    found = find_copies([split for split, _, _ in images], pictures)
    return [(copy.index, copy.of, copy.method, copy.leak) for copy in found]


def test_a_copy_in_another_split_is_a_leak_however_it_was_encoded(tmp_path: Path) -> None:
    one, two = scene(1, (416, 320)), scene(2, (416, 320))
    found = _copies(
        tmp_path,
        ("train", one, {"quality": 92}),
        ("train", two, {"quality": 92}),
        ("train", one, {"quality": 92}),
        ("val", two, {"quality": 25}),
        ("val", one.resize((250, 192)), {"quality": 80}),
        ("test", one, {"quality": 92}),
        ("test", scene(3, (416, 320)), {"quality": 92}),
    )
    assert found == [(2, 0, "exact", False), (3, 1, "near", True), (4, 0, "near", True), (5, 0, "exact", True)]


def test_a_fixed_camera_with_something_moved_is_no_copy(tmp_path: Path) -> None:
    frames = []
    for left in (100, 160, 220, 280):
        frame = scene(1, (416, 320))
        ImageDraw.Draw(frame).rectangle((left, 180, left + 20, 220), fill=(230, 80, 20))
        frames.append(frame)
    splits = ("train", "train", "val", "test")
    assert (
        _copies(tmp_path, *((split, frame, {"quality": 90}) for split, frame in zip(splits, frames, strict=True))) == []
    )
