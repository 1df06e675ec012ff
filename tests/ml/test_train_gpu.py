"""Trainings on an NVIDIA GPU: mixed precision, loader processes, a kill in the middle, NCCL, too little memory."""

from __future__ import annotations

import csv
import json
import re
import signal
import sys
from pathlib import Path

import detector
import pytest
import torch
from test_ddp_examples import TORCHRUN, check
from test_train import Checkout

from ml.ddp.digits import draw
from ml.ddp.idx import IMAGES, write_idx

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU: PyTorch sees none"),
]

RECIPE = """\
name: blocks
data: {{path: data, classes: [block, post]}}
train:
  {{model: yolov5n.yaml, epochs: {epochs}, imgsz: 96, batch: {batch}, nominal_batch: 8, optimizer: AdamW, lr0: 0.004,
   lrf: 0.05, warmup_epochs: 0.5, mosaic: 0.0, scale: 0.3, translate: 0.1, hsv_h: 0.0{more}}}
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("scenes") / "data"
    detector.write_split(data, "train", range(64))
    detector.write_split(data, "val", range(64, 80))
    return data


def blocks(folder: Path, scenes: Path, epochs: int, batch: int = 8, **more: object) -> Checkout:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").symlink_to(scenes)
    added = "".join(f", {name}: {value}" for name, value in more.items())
    (folder / "recipe.yaml").write_text(RECIPE.format(epochs=epochs, batch=batch, more=added))
    return Checkout(folder)


def precision() -> str:
    """What this GPU computes in: those before Ampere have no bf16."""
    return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"


def losses(place: Checkout) -> dict[str, float]:
    row = next(csv.DictReader((place.folder / "reports/train/history.csv").open()))
    return {name: float(value) for name, value in row.items() if name.endswith("_loss")}


def test_mixed_precision_with_loader_processes_learns_through_a_kill(tmp_path: Path, scenes: Path) -> None:
    place = blocks(tmp_path, scenes, epochs=20)
    process = place.start()
    try:
        place.wait_for(lambda: len(place.events("epoch")) == 3, process)
    finally:
        process.send_signal(signal.SIGKILL)
    process.communicate()
    said = place.run()
    assert re.search(r"going on after epoch [23]", said)
    noted = next(event["params"] for event in place.events("note") if event["params"])
    assert (noted["device"], noted["precision"]) == ("cuda:0", precision())
    assert int(noted["workers"]) > 0
    metrics = place.metrics()
    assert metrics["world"]["device"] == "cuda:0"
    assert metrics["mAP50"] > 0.8
    weights = torch.load(place.model, map_location="cpu", weights_only=False)
    assert all(value.device.type == "cpu" for value in weights["model"].state_dict().values())
    assert not list(place.training.glob("scratch-*"))


def test_mixed_precision_begins_like_full_precision(tmp_path: Path, scenes: Path) -> None:
    places = {name: blocks(tmp_path / name, scenes, epochs=1, precision=name) for name in ("fp32", precision())}
    for place in places.values():
        place.run()
    # With fp16 the first steps are left out, until the scale of the losses is found.
    near = 0.05 if precision() == "bf16" else 0.5
    assert losses(places[precision()]) == pytest.approx(losses(places["fp32"]), rel=near)


def test_memory_that_is_not_enough_is_one_sentence(tmp_path: Path, scenes: Path) -> None:
    place = blocks(tmp_path, scenes, epochs=1, batch=64)
    (tmp_path / "sitecustomize.py").write_text("import torch\ntorch.cuda.set_per_process_memory_fraction(1e-3)\n")
    recipe = (tmp_path / "recipe.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(recipe.replace("imgsz: 96", "imgsz: 640"))
    said = place.run(expect=1, PYTHONPATH=f"{tmp_path}:{Path(__file__).parents[2]}:{':'.join(sys.path)}")
    assert "train.batch: the memory is not enough" in said
    assert "Traceback" not in said


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path, scenes: Path) -> None:
    there = torch.cuda.device_count()
    place = blocks(tmp_path, scenes, epochs=1, device=f"cuda:{there}")
    assert f"train.device: is cuda:{there}, PyTorch sees {there} GPUs" in place.run(expect=1)


def test_ranks_with_a_gpu_each_meet_by_nccl(tmp_path: Path) -> None:
    size = torch.cuda.device_count()
    ranks = (*TORCHRUN, f"--nproc-per-node={size}")
    assert f"the same on {size} ranks" in check(tmp_path, *ranks, "ml/ddp/linear.py", "--steps=100")
    images = tmp_path / "images"
    images.mkdir()
    for split, count in (("train", 4096), ("t10k", 512)):
        write_idx(images / f"{split}-{IMAGES}", draw(count, seed=count)[0])
    examples = {"torch": ("ml/ddp/autoencoder.py",), "lightning": ("ml/ddp/autoencoder_lightning.py",)}
    for name, script in examples.items():
        folder = tmp_path / name
        check(folder, *ranks, *script, "--epochs=6", f"--data={images}", MLOPS_BACKEND="nccl")
        assert json.loads((folder / "ddp/output/metrics.json").read_text())["loss"] < 0.06


def test_yolov5_on_ranks_with_a_gpu_each_learns(tmp_path: Path, scenes: Path) -> None:
    place = blocks(tmp_path, scenes, epochs=14, precision="fp16")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("path: data", f"path: {scenes}"))
    size = torch.cuda.device_count()
    said = check(tmp_path, *TORCHRUN, f"--nproc-per-node={size}", "-m", "ml.ddp.yolov5", "--recipe", str(recipe))
    assert f"on {size} ranks with cuda:0" in said
    assert len(set(re.findall(r"weights ([0-9a-f]{64})", said))) == 1
    assert json.loads((place.folder / "ddp/output/metrics.json").read_text())["mAP50"] > 0.7
