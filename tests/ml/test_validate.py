"""A sound dataset passes, every kind of fault is found in the file that has it, and nothing is changed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from making_datasets import BOTH, CLASSES, add, save, scene, sound
from PIL import Image

from configs.problems import UserError
from ml.dataset import open_dataset
from ml.dataset.checks import inspect
from ml.dataset.faults import KINDS
from ml.dataset.report import make_report

ROOT = Path(__file__).parents[2]


def _faults(root: Path) -> list[tuple[str, str, int]]:
    return [(fault.kind, fault.file, fault.line) for fault in inspect(open_dataset(root, CLASSES)).faults]


def _run(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ml.validate", *map(str, arguments)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONUTF8": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def _state(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path): hashlib.md5(path.read_bytes()).hexdigest() for path in files}


def _label(text: str | bytes) -> Callable[[Path], object]:
    data = text if isinstance(text, bytes) else text.encode()
    return lambda root: (root / "labels/train/t1.txt").write_bytes(data)


def _image(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def apply(root: Path) -> None:
        path = root / "images/train/t1.jpg"
        path.write_bytes(change(path.read_bytes()))

    return apply


def _grey_tail(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def _gif(root: Path) -> None:
    scene(1).save(root / "images/train/t1.gif")
    (root / "images/train/t1.gif").replace(root / "images/train/t1.jpg")


IMAGE, LABEL = "images/train/t1.jpg", "labels/train/t1.txt"
CASES: list[tuple[str, str, int, Callable[[Path], object]]] = [
    ("image-empty", IMAGE, 0, _image(lambda data: b"")),
    ("image-truncated", IMAGE, 0, _image(lambda data: data[: len(data) * 2 // 3])),
    ("image-truncated", IMAGE, 0, _image(_grey_tail)),
    ("image-unreadable", IMAGE, 0, _image(lambda data: b"<html>not found</html>")),
    ("image-content", IMAGE, 0, _gif),
    ("image-small", IMAGE, 0, lambda root: scene(1, (9, 40)).save(root / IMAGE)),
    ("image-misnamed", IMAGE, 0, lambda root: scene(1).save(root / IMAGE, "PNG")),
    ("image-extension", "images/train/x.gif", 0, lambda root: scene(9).save(root / "images/train/x.gif")),
    ("file-foreign", "images/train/notes.doc", 0, lambda root: (root / "images/train/notes.doc").touch()),
    ("name-collision", "images/train/t1.jpg", 0, lambda root: add(root, "train", "T1.jpg", 9)),
    ("label-shared", "images/train/t1.png", 0, lambda root: save(9, root / "images/train/t1.png")),
    ("leak-exact", "images/test/e0.jpg", 0, lambda root: save(1, root / "images/test/e0.jpg")),
    ("leak-near", "images/val/v0.png", 0, lambda root: save(1, root / "images/val/v0.png")),
    ("duplicate-exact", "images/train/t3.jpg", 0, lambda root: save(1, root / "images/train/t3.jpg")),
    ("duplicate-near", "images/train/t3.jpg", 0, lambda root: save(1, root / "images/train/t3.jpg", 50)),
    ("label-missing", IMAGE, 0, lambda root: (root / LABEL).unlink()),
    ("label-orphan", "labels/val/gone.txt", 0, lambda root: (root / "labels/val/gone.txt").write_text(BOTH)),
    ("label-encoding", LABEL, 0, _label(b"0 .5 .5 .1 \xff\n")),
    ("label-encoding", LABEL, 1, _label("\ufeff0 .5 .5 .1 .1\n")),
    ("label-columns", LABEL, 2, _label("0 .5 .5 .1 .1\n0 .5 .5\n")),
    ("label-polygon", LABEL, 1, _label("0 .1 .1 .5 .1 .5 .5 .1 .5\n")),
    ("label-number", LABEL, 1, _label("0 .5 NaN .1 .1\n")),
    ("label-class", LABEL, 1, _label("7 .5 .5 .1 .1\n")),
    ("label-range", LABEL, 1, _label("0 48 32 10 10\n")),
    ("box-zero", LABEL, 1, _label("0 .5 .5 .1 0\n")),
    ("box-subpixel", LABEL, 1, _label("0 .5 .5 .005 .1\n")),
    ("box-outside", LABEL, 1, _label("0 .9 .5 .4 .1\n")),
    ("box-edge", "labels/train/wide.txt", 1, lambda root: _wide(root)),
    ("box-duplicate", LABEL, 3, _label("0 .5 .5 .1 .1\n1 .5 .5 .1 .1\n0 0.50 .5 .1 .1\n")),
    ("dataset-yaml", "dataset.yaml", 0, lambda root: (root / "dataset.yaml").unlink()),
    ("dataset-classes", "dataset.yaml", 0, lambda root: _replace(root / "dataset.yaml", "person", "pallet")),
    ("dataset-yaml", "dataset.yaml", 0, lambda root: _replace(root / "dataset.yaml", "images/val", "images/test")),
    ("split-empty", "images/test", 0, lambda root: _remove(root / "images/test", root / "labels/test")),
    ("class-missing", "labels/val", 0, lambda root: [_only_forklifts(path) for path in root.glob("labels/val/*.txt")]),
]


def _wide(root: Path) -> None:
    scene(9, (400, 300)).save(root / "images/train/wide.jpg")
    (root / "labels/train/wide.txt").write_text("0 .9 .5 .21 .1\n")


def _replace(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def _remove(*folders: Path) -> None:
    for folder in folders:
        for path in folder.iterdir():
            path.unlink()


def _only_forklifts(path: Path) -> None:
    path.write_text("0 .5 .5 .1 .1\n")


@pytest.mark.parametrize(
    ("kind", "file", "line", "spoil"), CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)]
)
def test_each_kind_of_fault_is_found_where_it_is(
    tmp_path: Path, kind: str, file: str, line: int, spoil: Callable[[Path], object]
) -> None:
    assert _faults(sound(tmp_path)) == []
    spoil(tmp_path)
    found = _faults(tmp_path)
    assert (kind, file, line) in found
    # What follows from the fault (a lost image orphans its label) is told too, but no other file is accused.
    assert {where for _, where, _ in found} <= {file, IMAGE, LABEL, "images/train/T1.jpg", "labels/test"}


def test_every_kind_of_fault_is_tried() -> None:
    assert {case[0] for case in CASES} == set(KINDS)


def test_background_images_and_upright_exif_are_sound(tmp_path: Path) -> None:
    sound(tmp_path)
    add(tmp_path, "train", "background.jpg", 50, label="")
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(51).save(tmp_path / "images/train/turned.jpg", exif=exif)
    (tmp_path / "labels/train/turned.txt").write_text(BOTH)
    inspection = inspect(open_dataset(tmp_path))
    assert inspection.faults == ()
    turned = next(look for look in inspection.looks if look.sample.image.name == "turned.jpg")
    assert turned.picture is not None
    assert (turned.picture.width, turned.picture.height) == (64, 96)
    assert make_report(inspection, 0).values["background"] == 1


def test_the_stage_passes_a_sound_dataset_twice_with_the_same_bytes(tmp_path: Path) -> None:
    sound(tmp_path / "data")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: forklift\ndata:\n  path: data\n  classes: [forklift, person]\n")
    before, outputs = _state(tmp_path / "data"), []
    for _ in range(2):
        ran = _run("--recipe", recipe, cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        outputs.append(_state(tmp_path / "reports/validate"))
    assert outputs[0] == outputs[1]
    assert _state(tmp_path / "data") == before
    text = (tmp_path / "reports/validate/report.json").read_text()
    assert str(tmp_path) not in text
    values: dict[str, Any] = json.loads(text)
    assert values["verdict"] == "pass"
    assert values["splits"]["train"]["classes"] == {"forklift": 4, "person": 4}
    assert values["box_sizes"]["val"] == dict.fromkeys(values["box_sizes"]["val"], 0) | {"8-16": 2, "16-32": 2}
    assert "\x1b" not in ran.stdout
    with Image.open(tmp_path / "reports/validate/samples.jpg") as grid:
        assert grid.width > 1000


def test_a_corrupt_dataset_stops_with_every_fault_listed(tmp_path: Path) -> None:
    root = sound(tmp_path / "mine", train=10)
    (root / "images/train/t1.jpg").write_bytes(b"")
    (root / "labels/train/t2.txt").write_text("0 .5 .5 .1 .1\n0 .5 oops .1 .1\n9 .5 .5 .1 .1\n")
    (root / "labels/train/t3.txt").unlink()
    (root / "labels/val/gone.txt").write_text(BOTH)
    save(0, root / "images/test/e1.jpg")
    before = _state(root)
    ran = _run(root, "--out", tmp_path / "out")
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    for said in (
        "images/train/t1.jpg: has no bytes",
        "labels/train/t2.txt:2: 'oops' is not a finite number",
        "labels/train/t2.txt:3: class '9' is unknown",
        "images/train/t3.jpg: has no label file labels/train/t3.txt",
        "labels/val/gone.txt: has no image",
        "images/test/e1.jpg: is a copy of images/train/t0.jpg (the same bytes)",
        "5 of 15 files are faulty (33.33%, allowed are 2.00%)",
    ):
        assert said in ran.stderr
    values = json.loads((tmp_path / "out/report.json").read_text())
    assert values["verdict"] == "fail"
    assert values["faulty"] == {"files": 5, "of": 15, "share": 0.333333, "max_share": 0.02, "dataset_errors": 0}
    assert values["splits"]["train"]["faulty"] == 3
    assert _state(root) == before
    allowed = _run(root, "--max-faulty", "0.34")
    assert allowed.returncode == 0
    assert "labels/train/t2.txt:3: class '9' is unknown" in allowed.stdout


def test_a_missing_split_stops_whatever_share_is_allowed(tmp_path: Path) -> None:
    _remove(sound(tmp_path) / "images/val", tmp_path / "labels/val")
    report = make_report(inspect(open_dataset(tmp_path)), 1.0)
    assert not report.passed
    assert report.values["faulty"]["files"] == 0


def test_the_report_never_lands_in_the_dataset(tmp_path: Path) -> None:
    from rich.console import Console

    from ml.validate import validate

    sound(tmp_path)
    with pytest.raises(UserError, match="lies in the dataset itself"):
        validate(tmp_path, None, 0.02, tmp_path / "reports", Console())


def test_progress_reaches_whoever_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from ml.validate import validate

    monkeypatch.setenv("MLOPS_EVENTS", str(tmp_path / "events.jsonl"))
    validate(sound(tmp_path / "data"), None, 0.02, None, Console(quiet=True))
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(event["done"], event["total"]) for event in events if event["kind"] == "progress"][-1] == (8, 8)
    assert "0 of 8 files are faulty" in events[-1]["message"]
