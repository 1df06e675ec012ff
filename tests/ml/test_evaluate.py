"""Stage evaluate: figures, exports, pictures; what it must not touch; what it says when something is wrong."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from configs.problems import UserError
from configs.recipe import Recipe
from ml.boxes.geometry import Boxes
from ml.evaluate import evaluate
from ml.evaluation.judging import Judged
from ml.evaluation.pictures import faults
from ml.evaluation.samples import Sample
from tests.ml.detector import NAMES, SIZE, Workplace, make_recipe, write_split


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_figures_are_those_of_yolo_val(workplace: Workplace, weights: Path, tmp_path: Path) -> None:
    """The metrics that go into the registry are what Ultralytics' own validation of the same file says."""
    from ultralytics import YOLO

    write_split(tmp_path, "test", range(100, 108))
    write_split(tmp_path, "test", range(108, 112), 100, 140)
    config = {"path": str(tmp_path), "train": "images/test", "val": "images/test", "names": dict(enumerate(NAMES))}
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(config))
    theirs = YOLO(str(weights)).val(
        **{"data": str(tmp_path / "dataset.yaml"), "imgsz": SIZE, "batch": 1, "iou": 0.7, "plots": False},
        **{"project": str(tmp_path), "name": "val", "device": "cpu", "verbose": False},
    )
    ours = workplace.metrics
    expected = dict(zip(("precision", "recall", "mAP50", "mAP50-95"), theirs.box.mean_results(), strict=True))
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    assert ours["classes"]["block"]["mAP50-95"] == pytest.approx(theirs.box.ap[0], abs=1e-4)
    assert ours["mAP50"] > 0.8, "the detector of the tests has not learnt"


def test_metrics_are_readable_and_complete(workplace: Workplace) -> None:
    written = json.loads((workplace.root / "reports/evaluate/metrics.json").read_text())
    assert written == workplace.metrics
    assert written["images"] == 12
    assert written["boxes"] == 24
    for runtime in ("onnx", "openvino"):
        parity = written["parity"][runtime]
        assert parity["agreeing"] == 1.0
        assert parity["images"] == 6
        assert parity["boxes"] >= 12, "boxes of either side are counted"
        assert parity["least_iou"] > 0.9
    with (workplace.root / "reports/evaluate/pr.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == set(NAMES)
    assert all(0 <= float(row["precision"]) <= 1 and 0 <= float(row["recall"]) <= 1 for row in rows)


def test_plots_and_pictures_show_something(workplace: Workplace) -> None:
    plots = workplace.root / "reports/evaluate/plots"
    assert sorted(path.name for path in plots.iterdir()) == [
        *("confusion.png", "f1.png", "pr.png", "predictions.jpg", "worst.jpg"),
    ]
    for path in plots.iterdir():
        image = cv2.imread(str(path))
        assert min(image.shape[:2]) > 300
        assert image.std() > 10, f"{path.name} is blank"


def test_again_gives_the_same_bytes_and_leaves_data_alone(workplace: Workplace, tmp_path: Path) -> None:
    """In a process of its own, as DVC runs it: the same files, none beside the data, no `runs` folder."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.pt").write_bytes((workplace.models / "model.pt").read_bytes())
    (tmp_path / "data").symlink_to(workplace.root / "data")
    values = {"name": "blocks", "data": {"path": "data", "classes": list(NAMES)}}
    values["evaluate"] = {"imgsz": SIZE, "parity_images": 6, "worst": 4}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    before = digests(workplace.root / "data")
    done = subprocess.run(
        [sys.executable, "-m", "ml.evaluate", "--recipe", "recipe.yaml"],
        **{
            "cwd": tmp_path,
            "env": _environment(tmp_path.parent / "home"),
            "capture_output": True,
            "text": True,
            "check": False,
        },
    )
    assert done.returncode == 0, done.stderr
    assert "mAP50-95" in done.stdout
    assert digests(workplace.root / "data") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mlops", "data", "models", "recipe.yaml", "reports"]
    assert digests(tmp_path / "models") == digests(workplace.models)
    assert digests(tmp_path / "reports/evaluate") == digests(workplace.root / "reports/evaluate")


def test_progress_is_told(workplace: Workplace, tmp_path: Path) -> None:
    from ml.events import Events

    (tmp_path / "model.pt").write_bytes((workplace.models / "model.pt").read_bytes())
    evaluate(workplace.recipe, tmp_path, tmp_path / "reports", Events("evaluate", tmp_path / "events.jsonl"))
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event for event in events if event["kind"] == "progress" and event["done"] == event["total"] == 12]
    assert events[-1]["params"]["mAP50"] == f"{workplace.metrics['mAP50']:.4f}"


def test_onnx_takes_other_sizes_and_batches(workplace: Workplace) -> None:
    """One export serves square test images and wide videos."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(workplace.models / "model.onnx"), providers=["CPUExecutionProvider"])
    for batch, height, width in ((1, 96, 96), (2, 64, 160)):
        answer = session.run(None, {"images": np.zeros((batch, 3, height, width), np.float32)})[0]
        candidates = sum(height * width // stride**2 for stride in (8, 16, 32))
        assert answer.shape == (batch, 4 + len(NAMES), candidates)


def test_another_network_is_not_exported(workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter that changes the weights is caught, and nothing appears in models/."""
    import ml.evaluate as stage

    honest = stage.export_openvino

    def spoilt(onnx: Path, folder: Path, *rest: object) -> None:
        honest(onnx, folder, *rest)
        weights = np.fromfile(folder / "model.bin", np.float32)
        weights[1000:50_000] *= 0.5
        weights.tofile(folder / "model.bin")

    monkeypatch.setattr(stage, "export_openvino", spoilt)
    (tmp_path / "model.pt").write_bytes((workplace.models / "model.pt").read_bytes())
    with pytest.raises(UserError, match=r"openvino: does not find what the weights find"):
        evaluate(workplace.recipe, tmp_path, tmp_path / "reports")
    assert [path.name for path in tmp_path.iterdir() if path.name != "reports"] == ["model.pt"]
    assert list((tmp_path / "reports").iterdir()) == []


def test_worst_images_are_those_with_missed_and_sure_false_boxes() -> None:
    truth = Boxes.truth([[0, 0, 10, 10], [20, 20, 40, 40]], [0, 1])
    sample = Sample(Path("a.png"), (50, 50), truth)
    found = Boxes(
        np.array([[0, 0, 10, 10], [20, 20, 40, 40], [30, 0, 40, 10]], np.float32),
        np.array([0.9, 0.8, 0.6], np.float32),
        np.array([0, 0, 1]),
    )
    wrong = faults(Judged(sample, found))
    assert wrong.missed == (1,)
    assert wrong.false == (1, 2), "the second is in the right place, but of another class"
    assert wrong.weight == pytest.approx(1 + 0.8 + 0.6)


def _environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in {"MLOPS_HOME", "YOLO_CONFIG_DIR"}}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(home)}


class TestFaults:
    """Each is a message for a person, with all that is wrong."""

    def test_no_weights(self, workplace: Workplace, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"model\.pt: there is no such file"):
            evaluate(workplace.recipe, tmp_path, tmp_path / "reports")

    @pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04" + bytes(100)])
    def test_no_checkpoint(self, workplace: Workplace, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "model.pt").write_bytes(content)
        with pytest.raises(UserError, match=r"model\.pt: is no checkpoint"):
            evaluate(workplace.recipe, tmp_path, tmp_path / "reports")

    def test_truncated_checkpoint(self, workplace: Workplace, tmp_path: Path) -> None:
        whole = (workplace.models / "model.pt").read_bytes()
        (tmp_path / "model.pt").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=r"model\.pt: is no checkpoint"):
            evaluate(workplace.recipe, tmp_path, tmp_path / "reports")

    def test_other_classes(self, workplace: Workplace) -> None:
        values = workplace.recipe.model_dump()
        values["data"]["classes"] = ("post", "block")
        with pytest.raises(UserError, match=r"was trained for the classes block, post; the recipe says post, block"):
            evaluate(Recipe.model_validate(values), workplace.models, workplace.root / "other")

    def test_bad_data_all_at_once(self, workplace: Workplace, tmp_path: Path) -> None:
        write_split(tmp_path, "test", range(4))
        (tmp_path / "images/test/001.png").write_bytes(b"no image")
        (tmp_path / "labels/test/002.txt").write_text("0 .5 .5 .1 .1\n7 .5 .5 .1 .1\nx y\n")
        with pytest.raises(UserError) as caught:
            evaluate(make_recipe(tmp_path), workplace.models, tmp_path / "reports")
        text = str(caught.value)
        assert len(caught.value.problems) == 3
        for part in ("001.png: is no image", "002.txt:2: is no box", "002.txt:3: is no box"):
            assert part in text

    def test_empty_split(self, workplace: Workplace, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="holds no images"):
            evaluate(make_recipe(tmp_path), workplace.models, tmp_path / "reports")
