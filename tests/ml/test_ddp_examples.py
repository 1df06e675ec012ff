"""The examples of distributed trainings learn what they must, on any number of processes, and go on after a stop."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from making_datasets import sound

from configs.problems import UserError
from ml.ddp.digits import draw
from ml.ddp.idx import IMAGES, LABELS, read_images, read_labels, write_idx
from ml.ddp.world import World, batches

ROOT = Path(__file__).parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--monitor-interval=0.5")


def start(folder: Path, *command: str, **variables: str) -> subprocess.Popen[str]:
    """Start a command on this checkout's code, with its state in ``folder``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLOPS_")}
    places = {"MLOPS_HOME": str(folder), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=kept | places | variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def check(folder: Path, *command: str, **variables: str) -> str:
    """Run a command that must succeed and return what it printed."""
    process = start(folder, *command, **variables)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def test_a_regression_begun_by_plain_python_ends_exactly_under_torchrun(tmp_path: Path) -> None:
    alone = check(tmp_path, sys.executable, "ml/ddp/linear.py", "--steps", "30")
    assert "the same on 1 ranks" in alone
    said = check(tmp_path, *TORCHRUN, "--nproc-per-node=2", "ml/ddp/linear.py", "--steps=60")
    assert "going on after step 30 with 2 ranks" in said
    assert "the same on 2 ranks" in said
    assert json.loads((tmp_path / "ddp/output/metrics.json").read_text())["loss"] < 1e-20


def test_too_short_a_regression_says_how_far_off_it_is(tmp_path: Path) -> None:
    process = start(tmp_path, sys.executable, "ml/ddp/linear.py", "--steps", "1")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "weights are off by" in said
    assert "Traceback" not in said


def test_batches_do_not_depend_on_the_number_of_ranks() -> None:
    def whole(size: int) -> list[list[int]]:
        device = torch.device("cpu")
        parts = [
            [part.tolist() for part, _ in batches(103, 10, 7, 2, World(rank, size, device))] for rank in range(size)
        ]
        return [sorted(chain(*split)) for split in zip(*parts, strict=True)]

    assert whole(1) == whole(2) == whole(3)
    assert sorted(chain(*whole(3))) == list(range(103))
    assert len(whole(4)) == 10  # three samples are too few for four ranks


def test_yolov5_on_two_nodes_ends_with_the_same_weights_on_all_ranks(tmp_path: Path) -> None:
    dataset = sound(tmp_path / "data", train=13)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: forklift\ndata: {{path: {dataset}, classes: [forklift, person]}}\n"
        "train: {epochs: 2, imgsz: 64, batch: 6, nominal_batch: 12, precision: fp32}\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = (
        *(*TORCHRUN, "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=nodes"),
        *(f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1"),
        *("-m", "ml.ddp.yolov5", "--recipe", str(recipe)),
    )
    nodes = [start(tmp_path, *command) for _ in range(2)]
    said = "".join(node.communicate(timeout=300)[0] for node in nodes)
    assert [node.returncode for node in nodes] == [0, 0], said
    weights = dict(re.findall(r"rank (\d) of 2: weights ([0-9a-f]{64})", said))
    assert set(weights) == {"0", "1"}
    assert weights["0"] == weights["1"]
    assert (tmp_path / "ddp/output/model.pt").stat().st_size > 1_000_000
    assert "mAP50" in json.loads((tmp_path / "ddp/output/metrics.json").read_text())


def test_idx_files_plain_and_compressed(tmp_path: Path) -> None:
    images, labels = draw(7, seed=3)
    write_idx(tmp_path / f"train-{IMAGES}.gz", images)
    write_idx(tmp_path / f"train-{LABELS}", labels)
    assert np.array_equal(read_images(tmp_path, "train"), images)
    assert np.array_equal(read_labels(tmp_path, "train"), labels)
    assert images.shape == (7, 28, 28)
    assert images.reshape(7, -1).max(axis=1).min() > 200


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "begins with nothing"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x02ab", "begins with 00 00 08 01, an IDX file of this kind with 00 00 08 03"),
        (b"\x00\x00\x08\x03\x00\x00", "ends after 6 bytes, within its sizes"),
        (
            b"\x00\x00\x08\x03" + b"\x00\x00\x00\x02" * 3 + b"seven b",
            "holds 7 bytes of values, its sizes 2 x 2 x 2 make 8",
        ),
    ],
)
def test_what_is_no_idx_file_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / f"train-{IMAGES}").write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_images(tmp_path, "train")


def test_a_compressed_file_that_is_cut_or_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no train-images-idx3-ubyte\[\.gz\]"):
        read_images(tmp_path, "train")
    (tmp_path / f"train-{IMAGES}.gz").write_bytes(gzip.compress(b"\x00\x00\x08\x03" * 9)[:-9])
    with pytest.raises(UserError, match="cannot be read"):
        read_images(tmp_path, "train")
