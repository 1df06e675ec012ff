"""A small training to tell a tracker about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.repository.git import CodeVersion
from infra.tracking.machine import Machine
from infra.tracking.registry import Candidate
from infra.tracking.tracker import TrainingRun
from infra.tracking.training import DataVersion, Training

DIGEST = "0123456789abcdef0123456789abcdef.dir"
MACHINE = Machine("node1", "Linux 6.1 x86_64", "EPYC", 2, 8.1, ("NVIDIA H100, 80 GB",), "3.11.7", {"torch": "2.15.0"})

CODE = CodeVersion("c0ffee" * 6 + "c0ff", "main", "feat: learn faster", "2026-11-01T10:00:00+01:00", "", ())


def training(name: str, key: str, **changes: Any) -> Training:
    values: dict[str, Any] = {
        "id": key,
        "name": name,
        "title": f"{name}-{key}",
        "params": {"name": name, "data": {"classes": ["forklift", "person"]}, "train": {"epochs": 2, "lr0": 0.003}},
        "code": CODE,
        "data": DataVersion("data", DIGEST, "smb://reader:hunter22@nas/share", "data-v1"),
        "machine": MACHINE,
        "lock_sha256": "ab" * 32,
        "train_key": f"key-{name}",
        "flow": "train-forklift",
        "flow_run_id": key,
        "flow_run_url": f"http://127.0.0.1:4242/runs/{key}",
    }
    return Training(**{**values, **changes})


def candidate(name: str, value: float, **changes: Any) -> Candidate:
    metrics = {"mAP50-95": value, "mAP50": 0.8, "mAP50/forklift": 0.9, "mAP50/person": 0.7}
    values: dict[str, Any] = {
        "name": name,
        "metrics": metrics,
        "metric": "mAP50-95",
        "margin": 0.01,
        "test_split": "split-1",
        "by": "ann@node1",
    }
    return Candidate(**{**values, **changes})


def model_files(folder: Path, content: str = "weights") -> dict[str, Path]:
    """Weights, ONNX and OpenVINO as ``TrainingRun.register`` takes them."""
    (folder / "openvino").mkdir(parents=True, exist_ok=True)
    (folder / "model.pt").write_text(content * 100)
    (folder / "model.onnx").write_text(f"onnx {content}")
    (folder / "openvino" / "model.xml").write_text(f"<net>{content}</net>")
    (folder / "openvino" / "model.bin").write_bytes(b"\0\1\2" * 50)
    return {"model.pt": folder / "model.pt", "model.onnx": folder / "model.onnx", "openvino": folder / "openvino"}


def tell_all(run: TrainingRun, name: str, folder: Path, value: float = 0.5) -> None:
    """A whole training but its end: epochs, test metrics, a plot, a version."""
    for epoch in (1, 2):
        run.epoch(epoch, {"train/box_loss": 2.0 / epoch, "mAP50-95": value * epoch / 2})
    run.params({"device": "cpu", "threads": 2})
    run.metrics({"mAP50-95": value, "mAP50": {"forklift": 0.9, "person": 0.7}})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pr.svg").write_text("<svg/>")
    run.artifact(folder / "pr.svg", "plots/pr.svg")
    run.register(model_files(folder), candidate(name, value))
