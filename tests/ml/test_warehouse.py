"""The drawn dataset: the same bytes however it is drawn, boxes around what can be seen, nothing half done."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import yaml

from configs.problems import UserError
from ml.events import Events
from ml.warehouse import CLASSES, SHIPPED_DIGEST, SPLITS, Plan, draw_dataset

SMALL = Plan(seed=5, train=6, val=3, test=3, frames=6)
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "data"
    draw_dataset(root, SMALL, processes=1)
    return root


def _tree(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_processes_and_runs_change_no_byte(small: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path / "again", SMALL, processes=3)
    assert _tree(tmp_path / "again") == _tree(small)


def test_vector_instructions_change_no_byte(small: Path, tmp_path: Path) -> None:
    plain = {
        "OPENCV_CPU_DISABLE": "AVX512-ICL,AVX512-SKX,AVX2,FMA3,AVX,FP16,SSE4.2,SSE4.1",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    }
    counts = [f"--{name}={count}" for name, count in vars(SMALL).items()]
    subprocess.run(
        [sys.executable, "-m", "ml.warehouse", str(tmp_path / "plain"), *counts],
        cwd=CHECKOUT, env=os.environ | plain, check=True, timeout=300,
    )  # fmt: skip
    assert _tree(tmp_path / "plain") == _tree(small)


def test_a_picture_depends_on_its_own_number_only(small: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path / "fewer", Plan(seed=5, train=2, val=0, test=1, frames=0), processes=1)
    whole, fewer = _tree(small), _tree(tmp_path / "fewer")
    assert len(fewer) == 7
    assert fewer.items() <= whole.items()


def test_splits_and_seeds_share_no_picture(small: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path / "other", Plan(seed=6, train=6, val=3, test=3, frames=0), processes=1)
    pictures = [
        digest for root in (small, tmp_path / "other") for name, digest in _tree(root).items() if name.endswith(".jpg")
    ]
    assert len(pictures) == 24
    assert len(set(pictures)) == 24


def test_layout_is_what_the_recipe_expects(small: Path) -> None:
    described = yaml.safe_load((small / "dataset.yaml").read_text())
    assert described == {
        "path": ".", **{split: f"images/{split}" for split in SPLITS}, "names": dict(enumerate(CLASSES)),
    }  # fmt: skip
    for split, count in zip(SPLITS, (6, 3, 3), strict=True):
        pictures = sorted((small / "images" / split).iterdir())
        labels = sorted((small / "labels" / split).iterdir())
        assert [p.stem for p in pictures] == [p.stem for p in labels] == [f"{n:05d}" for n in range(count)]
        for picture in pictures:
            assert cv2.imread(str(picture)).shape == (416, 416, 3)
        for path in labels:
            for row in path.read_text().splitlines():
                kind, x, y, width, height = row.split()
                assert int(kind) in (0, 1)
                assert float(width) > 0
                assert float(height) > 0
                for middle, size in ((float(x), float(width)), (float(y), float(height))):
                    assert middle - size / 2 > -1e-5
                    assert middle + size / 2 < 1 + 1e-5


def test_film_has_all_frames_and_its_truth(small: Path) -> None:
    truth = [json.loads(line) for line in (small / "video" / "warehouse.jsonl").read_text().splitlines()]
    with av.open(str(small / "video" / "warehouse.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 25)
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(stream)]
    assert [line["frame"] for line in truth] == list(range(6))
    assert [frame.shape for frame in frames] == [(1080, 1920, 3)] * 6
    for line in truth:
        assert {box["name"] for box in line["boxes"]} == set(CLASSES)
        assert len({box["track"] for box in line["boxes"]}) == len(line["boxes"])
        for box in line["boxes"]:
            x0, y0, x1, y1 = box["xyxy"]
            assert 0 <= x0 < x1 <= 1920
            assert 0 <= y0 < y1 <= 1080
            assert CLASSES[box["class"]] == box["name"]
    # What moves between two frames lies in the boxes (or in what is carried and in shadows, beside them).
    change = np.abs(frames[5].astype(int) - frames[0]).max(axis=2) > 40
    inside = np.zeros_like(change)
    for box in truth[0]["boxes"] + truth[5]["boxes"]:
        x0, y0, x1, y1 = box["xyxy"]
        inside[max(0, y0 - 20) : y1 + 20, max(0, x0 - 60) : x1 + 60] = True
    assert change.sum() > 2000
    assert (change & inside).sum() > 0.97 * change.sum()


def test_a_used_folder_and_bad_counts_are_refused_together(tmp_path: Path) -> None:
    kept = tmp_path / "data" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises(UserError) as caught:
        draw_dataset(tmp_path / "data", Plan(train=-1, frames=-2))
    assert [problem.where for problem in caught.value.problems] == ["--train", "--frames", str(tmp_path / "data")]
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "mine.txt"]
    assert kept.read_text() == "mine"


def test_progress_is_told_as_events(tmp_path: Path) -> None:
    told = tmp_path / "events.jsonl"
    draw_dataset(
        tmp_path / "data", Plan(train=3, val=1, test=0, frames=1), processes=1, events=Events("warehouse", told)
    )
    events = [json.loads(line) for line in told.read_text().splitlines()]
    assert [event["done"] for event in events] == [1, 4, 5]
    assert {event["total"] for event in events} == {5}


def test_a_killed_drawing_leaves_no_dataset_and_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ml.warehouse", str(tmp_path / "data"), "--frames=40"]
    drawing = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    _wait_for(lambda: any(tmp_path.glob(".data.drawing-*/images/train/*.jpg")))
    drawing.send_signal(signal.SIGKILL)
    drawing.wait()
    assert not (tmp_path / "data").exists()

    def pictures() -> int:
        return sum(1 for _ in tmp_path.rglob("*.jpg"))

    def still() -> bool:
        before = pictures()
        time.sleep(1)
        return pictures() == before

    _wait_for(still)
    draw_dataset(tmp_path / "data", Plan(train=1, val=0, test=0, frames=0), processes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.slow
def test_the_default_plan_is_the_shipped_dataset(tmp_path: Path) -> None:
    recorded = yaml.safe_load((CHECKOUT / "data.dvc").read_text())["outs"][0]
    assert recorded["md5"] == SHIPPED_DIGEST
    draw_dataset(tmp_path / "data", Plan())
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    for command in (["init", "--no-scm", "-q"], ["add", "-q", "data"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, env=environment, check=True, timeout=300)
    drawn = yaml.safe_load((tmp_path / "data.dvc").read_text())["outs"][0]
    assert drawn == recorded


def _wait_for(condition: object, seconds: float = 120) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
