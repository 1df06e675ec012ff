"""Whatever layout a dataset comes in, the same content ends as the same bytes; nothing gets out of the archive."""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making_datasets import CLASSES, save
from PIL import Image

from configs.problems import UserError
from ml.dataset import open_dataset
from ml.dataset.checks import inspect
from ml.dataset.report import make_report
from ml.importing import import_dataset
from ml.importing.unpack import member_path

# Pixels of a 96 x 64 image: class name, left, top, width, height.
CONTENT: dict[str, dict[str, list[tuple[str, int, int, int, int]]]] = {
    "train": {
        "one.jpg": [("Person", 12, 8, 24, 32), ("Forklift", 30, 10, 33, 41)],
        "zwei Gabeln.jpg": [("Forklift", 0, 0, 96, 64)],
        "empty.png": [],
    },
    "valid": {"three.jpg": [("Person", 1, 2, 3, 5)], "four.jpg": [("Forklift", 7, 7, 50, 50)]},
    "test": {"five.jpg": [("Person", 40, 20, 31, 17)]},
}
SEEDS = {name: seed for seed, name in enumerate(name for images in CONTENT.values() for name in images)}
SOURCE_CLASSES = ["Person", "Forklift"]


def _yolo_lines(boxes: list[tuple[str, int, int, int, int]]) -> str:
    lines = []
    for name, left, top, width, height in boxes:
        shares = ((left + width / 2) / 96, (top + height / 2) / 64, width / 96, height / 64)
        lines.append(" ".join([str(SOURCE_CLASSES.index(name)), *(repr(share) for share in shares)]))
    return "\n".join(lines)


def _labelled(images: Path, labels: Path, split: str) -> None:
    for name, boxes in CONTENT[split].items():
        save(SEEDS[name], images / name)
        labels.mkdir(parents=True, exist_ok=True)
        (labels / name).with_suffix(".txt").write_text(_yolo_lines(boxes))


def yolo(root: Path) -> Path:
    for split, folder in (("train", "train"), ("valid", "val"), ("test", "test")):
        _labelled(root / "images" / folder, root / "labels" / folder, split)
    (root / "dataset.yaml").write_text(
        "path: .\ntrain: images/train\nval: images/val\ntest: images/test\nnames: {0: Person, 1: Forklift}\n"
    )
    return root


def roboflow(root: Path) -> Path:
    for split in CONTENT:
        _labelled(root / split / "images", root / split / "labels", split)
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\nnames: ['Person', 'Forklift']\n"
    )
    return root


def _coco(split: str, numbers: dict[str, int]) -> dict[str, object]:
    images, annotations = [], []
    for number, (name, boxes) in enumerate(CONTENT[split].items(), start=1000):
        images.append({"id": number, "file_name": name, "width": 96, "height": 64})
        for class_name, *box in boxes:
            annotations.append({"image_id": number, "category_id": numbers[class_name], "bbox": box, "iscrowd": 0})
    crowd = {"image_id": 1000, "category_id": numbers["Person"], "bbox": [0, 0, 90, 60], "iscrowd": 1}
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    return {
        "images": images,
        "annotations": [*annotations, crowd],
        "categories": [{"id": 0, "name": "vehicles"}, *categories],
    }


def coco(root: Path) -> Path:
    for split in CONTENT:
        for name in CONTENT[split]:
            save(SEEDS[name], root / f"{split}2017" / name)
        (root / "annotations").mkdir(exist_ok=True)
        path = root / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(_coco(split, {"Person": 44, "Forklift": 7})))
    return root


def roboflow_coco(root: Path) -> Path:
    for split in CONTENT:
        for name in CONTENT[split]:
            save(SEEDS[name], root / split / name)
        (root / split / "_annotations.coco.json").write_text(json.dumps(_coco(split, {"Forklift": 1, "Person": 2})))
    return root


def zipped(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder.parent, folder.name))


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_all_layouts_end_in_the_same_bytes(tmp_path: Path, packed: bool) -> None:
    results, layouts = [], []
    for make in (yolo, roboflow, coco, roboflow_coco):
        source = make(tmp_path / make.__name__)
        before = contents(source)
        target = tmp_path / f"{make.__name__}-imported"
        summary = import_dataset(zipped(source) if packed else source, target, CLASSES)
        assert contents(source) == before
        assert summary.images == {"train": 3, "val": 2, "test": 1}
        assert summary.boxes == {"forklift": 3, "person": 3}
        assert summary.classes == {"Person": "person", "Forklift": "forklift"}
        assert summary.leaks == ()
        layouts.append((summary.layout, summary.crowds))
        results.append(contents(target))
    assert layouts == [("YOLO", 0), ("Roboflow", 0), ("COCO", 3), ("COCO", 3)]
    assert all(result == results[0] for result in results)
    one = results[0]["labels/train/one.txt"].decode().splitlines()
    assert one == ["1 0.250000 0.375000 0.250000 0.500000", "0 0.484375 0.476562 0.343750 0.640625"]
    assert results[0]["labels/train/empty.txt"] == b""
    report = make_report(inspect(open_dataset(tmp_path / "yolo-imported", CLASSES)), 0)
    assert report.passed, report.errors
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_polygons_become_boxes_and_faulty_lines_stay(tmp_path: Path) -> None:
    source = roboflow(tmp_path / "source")
    label = source / "train/labels/one.txt"
    label.write_text("0 .2 .2 .6 .2 .6 .4 .2 .4\n1 .5 broken .1 .1\nwhat is this\n1 1.5 .5 .1 .1\n")
    (source / "train/images/zwei Gabeln.jpg").write_bytes(b"no image")
    (source / "train/labels/orphan.txt").write_text("0 .5 .5 .1 .1\n")
    summary = import_dataset(source, tmp_path / "target", CLASSES)
    assert summary.polygons == 1
    text = (tmp_path / "target/labels/train/one.txt").read_text()
    assert text == ("1 0.400000 0.300000 0.400000 0.200000\n0 .5 broken .1 .1\nwhat is this\n0 1.5 .5 .1 .1\n")
    faults = inspect(open_dataset(tmp_path / "target")).faults
    assert {(fault.kind, fault.where) for fault in faults if fault.severity == "error"} == {
        ("label-number", "labels/train/one.txt:2"),
        ("label-columns", "labels/train/one.txt:3"),
        ("label-range", "labels/train/one.txt:4"),
        ("image-unreadable", "images/train/zwei Gabeln.jpg"),
        ("label-orphan", "labels/train/orphan.txt"),
    }


def test_a_flat_folder_with_a_list_of_classes_gets_its_splits(tmp_path: Path) -> None:
    for number in range(20):
        save(number, tmp_path / "flat/images" / f"{number}.jpg")
        label = tmp_path / "flat/labels" / f"{number}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text("1 .5 .5 .5 .5\n")
    (tmp_path / "flat/labels/classes.txt").write_text("Person\nForklift\n")
    with pytest.raises(UserError, match="nothing names the classes"):
        import_dataset(tmp_path / "flat", tmp_path / "target", CLASSES)
    (tmp_path / "flat/classes.txt").write_text("Person\nForklift\n")
    summary = import_dataset(tmp_path / "flat", tmp_path / "target", CLASSES)
    assert summary.images == {"train": 16, "val": 2, "test": 2}
    assert summary.boxes == {"forklift": 20, "person": 0}


def test_coco_polygons_unlisted_images_and_turned_photos(tmp_path: Path) -> None:
    source = coco(tmp_path / "source")
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(source / "test2017/five.jpg") as image:
        image.copy().save(source / "test2017/five.jpg", exif=exif)
    path = source / "annotations/instances_test2017.json"
    values = json.loads(path.read_text())
    values["images"][0] |= {"width": 64, "height": 96}
    polygon = [[16, 24, 48, 24, 48, 72], [32, 24, 40, 30, 20, 60]]
    values["annotations"] = [{"image_id": 1000, "category_id": 7, "segmentation": polygon}]
    path.write_text(json.dumps(values))
    save(77, source / "test2017/unlisted.jpg")
    summary = import_dataset(source, tmp_path / "target", CLASSES)
    assert summary.polygons == 1
    text = (tmp_path / "target/labels/test/five.txt").read_text()
    assert text == "0 0.500000 0.500000 0.500000 0.500000\n"
    faults = inspect(open_dataset(tmp_path / "target")).faults
    assert [(fault.kind, fault.file) for fault in faults if fault.severity == "error"] == [
        ("label-missing", "images/test/unlisted.jpg")
    ]


def test_unknown_classes_are_named_unless_renamed_or_dropped(tmp_path: Path) -> None:
    source = roboflow(tmp_path / "source")
    with pytest.raises(UserError) as caught:
        import_dataset(source, tmp_path / "target", ("truck", "worker"))
    text = str(caught.value)
    assert "'Person' has boxes" in text
    assert "'Forklift' has boxes" in text
    assert "known are: truck, worker" in text
    assert not (tmp_path / "target").exists()
    summary = import_dataset(source, tmp_path / "target", ("truck",), rename={"forklift": "Truck", "person": ""})
    assert summary.boxes == {"truck": 3}
    assert summary.dropped == 3
    assert summary.classes == {"Person": "", "Forklift": "truck"}


def test_what_cannot_be_known_comes_at_once(tmp_path: Path) -> None:
    source = roboflow(tmp_path / "source")
    (source / "train/labels/one.txt").write_text("0 .5 .5 .1 .1\n5 .5 .5 .1 .1\n")
    (source / "valid/labels/four.txt").write_text("-1 .5 .5 .1 .1\n")
    archive = zipped(source)
    with pytest.raises(UserError) as caught:
        import_dataset(archive, tmp_path / "target", CLASSES, rename={"pallet": "forklift"})
    told = [problem.where for problem in caught.value.problems]
    assert f"{archive}/train/labels/one.txt:2" in told
    assert f"{archive}/valid/labels/four.txt:1" in told
    assert "rename pallet" in told


def test_a_broken_coco_file_tells_all_its_faults(tmp_path: Path) -> None:
    source = coco(tmp_path / "source")
    path = source / "annotations/instances_train2017.json"
    values = json.loads(path.read_text())
    values["images"][0]["width"] = 640
    values["images"][1]["file_name"] = "../../etc/passwd.jpg"
    values["images"][2]["file_name"] = "gone.jpg"
    values["annotations"].append({"image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4]})
    path.write_text(json.dumps(values))
    (source / "annotations/instances_test2017.json").write_text('{"images": 3}')
    with pytest.raises(UserError) as caught:
        import_dataset(source, tmp_path / "target", CLASSES)
    text = str(caught.value)
    for said in (
        "stated as 640 x 64 pixels, but has 96 x 64",
        "a name that is no file of the dataset",
        "'gone.jpg': there is no such image",
        "belong to image 5, which is not listed",
        "is no COCO file: images:",
    ):
        assert said in text


def _versions(root: Path, split: str, original: str, seeds: range) -> None:
    for seed in seeds:
        save(seed, root / split / "images" / f"{original}_jpg.rf.{seed:032x}.jpg")
        label = root / split / "labels" / f"{original}_jpg.rf.{seed:032x}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 .5 .5 .5 .5\n")


def _augmented(root: Path) -> Path:
    """Ten originals of three versions in train; two in val, of which one also in train; one of them copied."""
    for number in range(10):
        _versions(root, "train", f"original{number}", range(number * 3, number * 3 + 3))
    _versions(root, "valid", "original4", range(100, 101))
    _versions(root, "valid", "other", range(101, 102))
    _versions(root, "valid", "copy", range(6, 7))
    _versions(root, "valid", "third", range(102, 103))
    (root / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnames: [forklift, person]\n")
    return root


def _originals(root: Path, split: str) -> set[str]:
    return {path.name.split(".rf.")[0] for path in (root / "images" / split).iterdir()}


def test_no_original_ends_in_two_splits_and_every_move_is_told(tmp_path: Path) -> None:
    source = _augmented(tmp_path / "source")
    summary = import_dataset(source, tmp_path / "target", CLASSES)
    assert summary.images == {"train": 32, "val": 1, "test": 1}
    assert [(move.image[:9], move.source_split, move.split) for move in summary.leaks] == [
        ("copy_jpg.", "val", "train"),
        ("original4", "val", "train"),
    ]
    assert "leak: val/copy_jpg" in str(summary)
    assert "taken from val" in str(summary)
    splits = [_originals(tmp_path / "target", split) for split in ("train", "val", "test")]
    assert len(set.union(*splits)) == sum(map(len, splits))
    kept = import_dataset(source, tmp_path / "kept", CLASSES, regroup=False)
    assert [move.split for move in kept.leaks] == ["val", "val"]
    assert "left in val" in str(kept)


def test_missing_splits_are_whole_groups_and_depend_on_the_seed_alone(tmp_path: Path) -> None:
    source = _augmented(tmp_path / "source")
    shutil.rmtree(source / "valid")
    (source / "data.yaml").write_text("train: ../train/images\nnames: [forklift, person]\n")
    summary = import_dataset(source, tmp_path / "one", CLASSES)
    assert summary.images == {"train": 24, "val": 3, "test": 3}
    again = import_dataset(zipped(source), tmp_path / "two", CLASSES)
    assert again == summary
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    import_dataset(source, tmp_path / "other", CLASSES, seed=1)
    assert _originals(tmp_path / "other", "test") != _originals(tmp_path / "one", "test")


def test_names_stay_readable_and_unique(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number, name in enumerate(("cam1/0001.jpg", "cam2/0001.jpg", "a.jpg", "A.JPG", "a.png", "was: das?.jpg")):
        save(number, source / "train/images" / name)
        label = (source / "train/labels" / name).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 .5 .5 .5 .5\n")
    for number in range(4):
        save(50 + number, source / "valid/images" / f"v{number}.jpg")
    (source / "valid/labels").mkdir()
    (source / "data.yaml").write_text("train: train/images\nval: valid/images\nnames: [forklift]\n")
    summary = import_dataset(source, tmp_path / "target", CLASSES)
    names = sorted(path.name for path in (tmp_path / "target/images/train").iterdir())
    assert names == ["A.jpg", "a-2.jpg", "a-3.png", "cam1_0001.jpg", "cam2_0001.jpg", "was_ das_.jpg"]
    assert "renamed: train/cam2/0001.jpg -> cam2_0001.jpg" in summary.notes
    found = inspect(open_dataset(tmp_path / "target")).faults
    assert {fault.kind for fault in found} == {"label-missing", "class-missing"}


def _archive(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def test_nothing_leaves_the_archive(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("train/images/link.jpg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    names = ["../out.txt", "/tmp/out.txt", "C:/out.txt", "train\\..\\..\\out.txt", "a/../../out.txt"]
    (tmp_path / "in").mkdir()
    archive = _archive(tmp_path / "in/x.zip", *((name, b"x") for name in names), (link, b"/etc/passwd"))
    with pytest.raises(UserError) as caught:
        import_dataset(archive, tmp_path / "in/target", CLASSES)
    assert len(caught.value.problems) == len(names) + 1
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "x.zip"]


def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    bomb = _archive(tmp_path / "bomb.zip", ("train/images/a.bmp", bytes(64 << 20)))
    with pytest.raises(UserError, match="times its size"):
        import_dataset(bomb, tmp_path / "target", CLASSES)
    large = _archive(tmp_path / "large.zip", ("train/images/a.jpg", os.urandom(100_000)))
    with pytest.raises(UserError, match="allowed are"):
        import_dataset(large, tmp_path / "target", CLASSES, max_bytes=50_000)
    data = bytearray(_archive(tmp_path / "liar.zip", ("train/images/a.jpg", bytes(300_000))).read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    struct.pack_into("<L", data, directory + 24, 1000)
    (tmp_path / "liar.zip").write_bytes(data)
    with pytest.raises(UserError, match="is damaged"):
        import_dataset(tmp_path / "liar.zip", tmp_path / "target", CLASSES)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(UserError, match="no sound zip"):
        import_dataset(tmp_path / "text.zip", tmp_path / "target", CLASSES)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".zip"] * 4


def test_links_out_of_a_folder_and_taken_targets_are_refused(tmp_path: Path) -> None:
    source = roboflow(tmp_path / "source")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (source / "train/images/link.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(UserError, match="leads out of the dataset"):
        import_dataset(source, tmp_path / "target", CLASSES)
    with pytest.raises(UserError) as caught:
        import_dataset(source, source, CLASSES)
    assert {problem.what for problem in caught.value.problems} == {"is there already", "lies in the source"}
    (tmp_path / "strange/deep").mkdir(parents=True)
    (tmp_path / "strange/notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"no layout known here \(it holds deep, notes.txt\)"):
        import_dataset(tmp_path / "strange", tmp_path / "target", CLASSES)


@given(st.one_of(st.text(max_size=40), st.text("./\\:a\x00C", max_size=12)))
def test_any_member_name_is_refused_or_stays_inside(name: str) -> None:
    try:
        path = member_path(name)
    except ValueError:
        return
    root = PurePosixPath("/root/folder")
    assert PurePosixPath(os.path.normpath(root / path)).is_relative_to(root)
    assert path.name


def _photos() -> Path:
    for parent in Path(__file__).resolve().parents:
        path = parent / "shared" / "data" / "forklift-v5.zip"
        if path.is_file():
            return path
    pytest.skip("the photos are not there: ../shared/data/forklift-v5.zip beside the checkout")


@pytest.mark.photos
def test_the_real_photos_import_and_pass(tmp_path: Path) -> None:
    summary = import_dataset(_photos(), tmp_path / "photos", CLASSES)
    assert summary.layout == "Roboflow"
    assert summary.images == {"train": 885, "val": 42, "test": 42}
    assert summary.boxes == {"forklift": 1053, "person": 963}
    assert summary.leaks == ()
    report = make_report(inspect(open_dataset(tmp_path / "photos", CLASSES)), 0)
    assert report.passed
    assert report.faults == ()
    assert report.values["background"] == 3
