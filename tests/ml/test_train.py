"""A real micro-training in processes of its own, on two threads: what it leaves, what it says, what survives a kill."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
EPOCHS = 3
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="ultralytics-"))

RECIPE = """\
name: forklift
data:
  path: data
  classes: [forklift, person]
train:
  model: yolov5n.yaml
  epochs: {epochs}
  imgsz: 64
  batch: 4
  nominal_batch: 8
  mosaic: 0.5
  close_mosaic: 1
  threads: 2
"""


def _own_environment() -> dict[str, str]:
    """This process's environment without the state folder that other tests may have named in it."""
    return {name: value for name, value in os.environ.items() if name != "MLOPS_HOME"}


@dataclass
class Checkout:
    """A folder with data and a recipe, in which the stage runs as users run it."""

    folder: Path

    def start(self, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "ml.train", "--recipe", "recipe.yaml"],
            cwd=self.folder,
            env={**_own_environment(), "PYTHONPATH": str(ROOT), "MLOPS_EVENTS": "events.jsonl", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, expect: int = 0, **environment: str) -> str:
        process = self.start(**environment)
        out, errors = process.communicate(timeout=240)
        assert process.returncode == expect, out + errors
        return out + errors

    def events(self, kind: str) -> list[dict[str, Any]]:
        path = self.folder / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    def wait_for(self, happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        end = time.monotonic() + 240
        while not happened():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)

    def metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = json.loads((self.folder / "reports/train/metrics.json").read_text())
        return metrics

    @property
    def model(self) -> Path:
        return self.folder / "models/model.pt"

    @property
    def training(self) -> Path:
        (folder,) = (self.folder / ".mlops/training").iterdir()
        return folder


def draw(folder: Path, count: int, size: int = 80) -> None:
    """Grey noise with one or two bright boxes, class by colour; every fourth image shows nothing."""
    random = np.random.default_rng(len(folder.parts) + count)
    labels = folder.parents[1] / "labels" / folder.name
    folder.mkdir(parents=True)
    labels.mkdir(parents=True)
    for index in range(count):
        image = random.integers(80, 120, (size, size + 16 * (index % 2), 3), dtype=np.uint8)
        rows = []
        for label in range(0 if index % 4 == 3 else 1 + index % 2):
            x, y = (int(value) for value in random.integers(2, 40, 2))
            cv2.rectangle(image, (x, y), (x + 24, y + 30), ((30, 30, 250), (250, 200, 30))[label], -1)
            height, width = image.shape[:2]
            rows.append(f"{label} {(x + 12) / width} {(y + 15) / height} {24 / width} {30 / height}\n")
        cv2.imwrite(str(folder / f"{index:03}.jpg"), image)
        (labels / f"{index:03}.txt").write_text("".join(rows))


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    draw(folder / "images/train", 14)
    draw(folder / "images/val", 5)
    return folder


def checkout(folder: Path, data: Path, epochs: int = EPOCHS) -> Checkout:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(data, folder / "data")
    (folder / "recipe.yaml").write_text(RECIPE.format(epochs=epochs))
    return Checkout(folder)


@dataclass
class Whole:
    """A training that nothing interrupted."""

    checkout: Checkout
    output: str
    model: bytes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Whole:
    place = checkout(tmp_path_factory.mktemp("whole"), data)
    output = place.run()
    return Whole(place, output, place.model.read_bytes())


def test_metrics_and_history_agree_and_name_the_conditions(whole: Whole) -> None:
    metrics = whole.checkout.metrics()
    rows = list(csv.DictReader((whole.checkout.folder / "reports/train/history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    best = rows[metrics["best_epoch"] - 1]
    assert metrics["epochs"] == EPOCHS
    assert float(best["mAP50-95"]) == max(float(row["mAP50-95"]) for row in rows)
    assert float(best["mAP50-95"]) == pytest.approx(metrics["mAP50-95"], rel=1e-4)
    assert all(float(row[name]) > 0 for row in rows for name in ("box_loss", "cls_loss", "dfl_loss", "lr", "seconds"))
    world = metrics["world"]
    assert (world["device"], world["threads"]) == ("cpu", 2)
    assert world["images_per_s"] > 0
    assert world["peak_memory_mb"] > 100


def test_model_loads_in_ultralytics_and_knows_its_classes(whole: Whole) -> None:
    import torch
    from ultralytics import YOLO

    from ml.yolov5.results import weights_sha256

    model = YOLO(whole.checkout.model)
    assert model.names == {0: "forklift", 1: "person"}
    assert model.ckpt["license"].startswith("AGPL-3.0")
    assert model.overrides["imgsz"] == 64
    halves = {name: x.half() if x.is_floating_point() else x for name, x in model.model.state_dict().items()}
    assert weights_sha256(halves) == whole.checkout.metrics()["weights_sha256"]
    predicted, _ = model.model(torch.zeros(1, 3, 64, 64))
    assert predicted.shape == (1, 4 + 2, 8 * 8 + 4 * 4 + 2 * 2)


def test_model_tells_nothing_of_place_or_time(whole: Whole) -> None:
    assert str(whole.checkout.folder).encode() not in whole.model
    assert os.uname().nodename.encode() not in whole.model


def test_progress_is_told_in_events_and_lines(whole: Whole) -> None:
    (note,) = (event for event in whole.checkout.events("note") if event["params"])
    assert note["params"]["device"] == "cpu"
    assert note["params"]["threads"] == "2"
    assert note["params"]["resumed_from_epoch"] == "0"
    epochs = whole.checkout.events("epoch")
    assert [event["epoch"] for event in epochs] == [1, 2, 3]
    assert {"box_loss", "mAP50", "mAP50-95", "precision", "recall"} <= set(epochs[0]["metrics"])
    assert epochs[0]["eta_s"] > 0
    assert epochs[-1]["eta_s"] == 0
    assert whole.checkout.events("progress")[0]["unit"] == "batches"
    assert whole.output.count("mAP50-95") == EPOCHS


def test_only_the_outputs_and_the_state_are_written(whole: Whole, data: Path) -> None:
    folder = whole.checkout.folder
    assert tree(folder / "data") == tree(data)
    assert {path.name for path in folder.iterdir()} == {
        "data", "recipe.yaml", "events.jsonl", "models", "reports", ".mlops",
    }  # fmt: skip
    kept = {path.name for path in whole.checkout.training.iterdir()}
    assert kept == {"lock", "finished.json", "model.pt", "metrics.json", "history.csv"}


def test_finished_training_is_given_out_again(whole: Whole, tmp_path: Path) -> None:
    place = checkout(tmp_path, whole.checkout.folder / "data")
    shutil.copytree(whole.checkout.folder / ".mlops", tmp_path / ".mlops")
    output = place.run()
    assert "trained before" in output
    assert place.model.read_bytes() == whole.model
    assert place.metrics() == whole.checkout.metrics()
    assert place.events("epoch") == []


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Checkout:
    """A training that SIGKILL ended in its second epoch."""
    place = checkout(tmp_path_factory.mktemp("killed"), data)
    process = place.start()
    try:
        place.wait_for(lambda: bool(place.events("epoch")), process)
    finally:
        process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not place.model.exists()
    return place


def test_killed_training_resumes_to_the_same_weights(killed: Checkout, whole: Whole) -> None:
    output = killed.run()
    assert "going on after epoch 1" in output
    assert [event["epoch"] for event in killed.events("epoch")] == [1, 2, 3]
    assert killed.model.read_bytes() == whole.model
    assert not list(killed.training.glob("scratch-*"))


def test_sigterm_stops_soon_and_a_corrupt_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, data: Path, whole: Whole
) -> None:
    place = checkout(tmp_path, data)
    process = place.start()
    place.wait_for(lambda: len(place.events("epoch")) == 2, process)
    asked = time.monotonic()
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 143, errors
    assert time.monotonic() - asked < 20
    assert "Traceback" not in errors
    _, newer = sorted(place.training.glob("epoch-*.ckpt"))
    content = bytearray(newer.read_bytes())
    content[len(content) // 2] ^= 1
    newer.write_bytes(content)
    output = place.run()
    assert f"{newer.name} is corrupt" in output
    assert "going on after epoch 1" in output
    assert place.model.read_bytes() == whole.model


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_that_reaches_the_loader_processes_too_is_a_stop(
    tmp_path: Path, data: Path, number: signal.Signals, status: int
) -> None:
    place = checkout(tmp_path, data, epochs=50)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "  workers: 2\n")
    process = place.start()
    place.wait_for(lambda: len(place.events("epoch")) == 1, process)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == status, errors
    assert "loader process" not in errors
    assert "Traceback" not in errors


def test_same_training_twice_at_once_is_refused(whole: Whole, tmp_path: Path) -> None:
    import fcntl

    place = checkout(tmp_path, whole.checkout.folder / "data")
    folder = tmp_path / ".mlops/training" / whole.checkout.training.name
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "running in another process" in place.run(expect=1)


@pytest.mark.machine
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="a small tmpfs can only be mounted by root")
def test_full_disk_is_explained_and_leaves_no_debris(tmp_path: Path, data: Path) -> None:
    place = checkout(tmp_path / "checkout", data, epochs=1)
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        output = place.run(expect=1, MLOPS_HOME=str(small))
        assert "the disk is full" in output
        assert "Traceback" not in output
        (training,) = (small / "training").iterdir()
        assert {path.name for path in training.iterdir()} == {"lock"}
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_loss_that_is_no_number_is_explained(whole: Whole, tmp_path: Path) -> None:
    import torch

    place = checkout(tmp_path, whole.checkout.folder / "data")
    broken = torch.load(whole.checkout.model, weights_only=False)
    next(broken["model"].parameters()).data.fill_(float("nan"))
    torch.save(broken, tmp_path / "broken.pt")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("yolov5n.yaml", "broken.pt"))
    output = place.run(expect=1)
    assert "train.lr0: the training diverged in epoch 1" in output
    assert "Traceback" not in output
