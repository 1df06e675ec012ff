"""The parts of the train stage on their own: labels, metrics, checkpoints, kept results."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="ultralytics-"))

import torch

from configs.problems import UserError
from configs.recipe import Recipe, TrainSection
from ml.yolov5 import inputs, results
from ml.yolov5.checkpoints import Checkpoints
from ml.yolov5.dataset import image_size, read_rows
from ml.yolov5.settings import available_cores, decide
from ml.yolov5.validator import load_suppression, suppress, true_positives

RECIPE = Recipe.model_validate({"name": "forklift", "data": {"classes": ["forklift", "person"]}})


def test_rows_are_boxes_once_and_polygons_become_boxes(tmp_path: Path) -> None:
    path = tmp_path / "label.txt"
    path.write_text("0 0.5 0.5 0.2 0.4\n\n0 0.5 0.5 0.2 0.4\n1 0.1 0.2 0.3 0.2 0.3 0.6\n")
    assert read_rows(path, 2) == pytest.approx(np.array([[0, 0.5, 0.5, 0.2, 0.4], [1, 0.2, 0.4, 0.2, 0.4]]))
    assert read_rows(tmp_path / "missing.txt", 2).shape == (0, 5)


@pytest.mark.parametrize("row", ["2 0.5 0.5 0.1 0.1", "0 1.5 0.5 0.1 0.1", "0 0.5 0.5", "0 nan 0.5 0.1 0.1", "cat"])
def test_faulty_rows_are_refused(tmp_path: Path, row: str) -> None:
    path = tmp_path / "label.txt"
    path.write_text(row + "\n")
    with pytest.raises(ValueError, match=r"label.txt:1|could not convert"):
        read_rows(path, 2)


def test_truncated_images_are_refused_and_never_mended(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    cv2.imwrite(str(whole), noise)
    cut.write_bytes(whole.read_bytes()[:-600])
    before = cut.read_bytes()
    assert image_size(whole) == (40, 60)
    with pytest.raises((OSError, SyntaxError)):
        image_size(cut)
    assert cut.read_bytes() == before


def test_true_positives_are_those_of_ultralytics() -> None:
    from ultralytics.engine.validator import BaseValidator

    random = np.random.default_rng(1)
    levels = SimpleNamespace(iouv=torch.linspace(0.5, 0.95, 10))
    for objects, detections in ((0, 3), (3, 0), (1, 1), (5, 40)):
        overlaps = random.random((objects, detections), dtype=np.float32)
        same = torch.zeros(objects), torch.zeros(detections)
        theirs = BaseValidator.match_predictions(levels, same[1], same[0], torch.from_numpy(overlaps))
        assert np.array_equal(true_positives(overlaps), theirs.numpy())


def test_suppression_is_that_of_ultralytics() -> None:
    from ultralytics.utils.nms import non_max_suppression

    load_suppression()
    random = torch.Generator().manual_seed(2)
    boxes = torch.rand((400, 4), generator=random) * torch.tensor([200.0, 200.0, 60.0, 60.0])
    predictions = torch.cat((boxes, torch.rand((400, 2), generator=random) ** 6), 1)
    (theirs,) = non_max_suppression(predictions.T[None].clone(), 0.001, 0.7, multi_label=True)
    assert torch.allclose(suppress(predictions), theirs, atol=1e-4)


def test_checkpoints_keep_two_and_pass_over_damaged_ones(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epochs in (1, 2, 3):
        checkpoints.save(epochs, {"epochs": epochs, "model": {"weight": torch.full((4,), float(epochs))}})
    second, third = sorted(tmp_path.iterdir())
    (tmp_path / ".epoch-00004.ckpt.1").write_bytes(b"half")
    third.write_bytes(third.read_bytes()[:-100])
    warnings: list[str] = []
    state = checkpoints.load(warnings.append)
    assert state is not None
    assert state["epochs"] == 2
    assert state["model"]["weight"].tolist() == [2.0] * 4
    assert len(warnings) == 1
    assert list(tmp_path.iterdir()) == [second]
    second.write_bytes(b"")
    assert checkpoints.load(warnings.append) is None


def test_kept_results_count_only_if_every_byte_is_there(tmp_path: Path) -> None:
    files = {results.MODEL: b"weights", results.METRICS: b"{}"}
    results.seal(tmp_path, files)
    assert results.sealed(tmp_path) == files
    (tmp_path / "model.pt").write_bytes(b"weighty")
    assert results.sealed(tmp_path) is None


def test_another_label_or_recipe_is_another_training(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        (tmp_path / "images" / split / "a.jpg").write_bytes(b"image")
    label = tmp_path / "labels/train/a.txt"
    label.write_text("0 0.5 0.5 0.1 0.1\n")
    before = inputs.digest(tmp_path)
    first = inputs.key(RECIPE, "yolov5n.yaml", before)
    assert first == inputs.key(RECIPE, "yolov5n.yaml", inputs.digest(tmp_path))
    label.write_text("0 0.5 0.5 0.1 0.2\n")
    assert inputs.digest(tmp_path) != before
    longer = RECIPE.model_copy(update={"train": TrainSection(epochs=8)})
    assert inputs.key(longer, "yolov5n.yaml", before) != first


def test_missing_splits_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "images/val").mkdir(parents=True)
    with pytest.raises(UserError) as raised:
        inputs.check_data(tmp_path)
    assert [Path(problem.where).name for problem in raised.value.problems] == ["train", "val"]


@pytest.mark.parametrize("name", ["yolov9z.yaml", "missing.pt", "yolov5n"])
def test_unknown_models_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file and no YOLOv5 model"):
        inputs.resolve_model(name, tmp_path)


def test_models_of_the_u_form_are_the_shipped_ones(tmp_path: Path) -> None:
    assert inputs.resolve_model("yolov5nu.yaml", tmp_path) == "yolov5n.yaml"


def test_what_this_machine_cannot_do_is_told() -> None:
    with pytest.raises(UserError, match=r"train.device: is cuda:63"):
        decide(TrainSection(device="cuda:63"))
    with pytest.raises(UserError, match=r"train.precision: is fp16, which needs a CUDA GPU"):
        decide(TrainSection(device="cpu", precision="fp16"))


def test_there_is_a_thread_for_each_core_whatever_ultralytics_sets_when_it_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLOPS_CORES", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert decide(TrainSection(device="cpu")).threads == available_cores()
    monkeypatch.setenv("MLOPS_CORES", "1")
    assert decide(TrainSection(device="cpu")).threads == 1


def test_threads_and_device_are_decided_once() -> None:
    settings = decide(TrainSection(device="cpu", threads=3, workers=-1))
    assert (settings.device, settings.threads, settings.workers) == ("cpu", 3, 0)
    assert settings.precision in ("bf16", "fp32")
