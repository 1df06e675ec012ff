"""Stage detect: frame counts, boxes, tables and videos that play; odd, damaged and missing inputs."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from configs.problems import UserError
from configs.recipe import DetectSection
from ml.boxes.drawing import class_colour
from ml.boxes.geometry import Boxes, iou, match
from ml.detect import main
from ml.detection.detecting import Summary, detect
from ml.events import Events
from tests.ml.detector import NAMES, Workplace, scene, write_split, write_video

SETTINGS = DetectSection(imgsz=160, precision="fp32")
CONFIDENT = 0.5


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "detections.jsonl").read_text().splitlines()]


def boxes_of(line: dict[str, object]) -> Boxes:
    return Boxes.truth([box["xyxy"] for box in line["boxes"]], [box["class"] for box in line["boxes"]])


@dataclass(frozen=True)
class Stream:
    """What a video stream says of itself, read while its file is open."""

    average_rate: Fraction | None
    pix_fmt: str
    height: int
    width: int


def decoded(path: Path) -> tuple[list[np.ndarray], list[float], Stream]:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        stream = Stream(video.average_rate, video.codec_context.pix_fmt, video.height, video.width)
        frames = list(container.decode(video))
        return [frame.to_ndarray(format="rgb24") for frame in frames], [frame.time for frame in frames], stream


def index_first(path: Path) -> bytes:
    """The video with its index in front, as cut-off downloads have it."""
    fast = path.with_name("fast.mp4")
    with av.open(str(path)) as source, av.open(str(fast), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return fast.read_bytes()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "blocks.mp4", truth=True)


@pytest.fixture(scope="module")
def found(workplace: Workplace, video: Path) -> tuple[Path, Summary]:
    out = workplace.root / "reports" / "detect"
    return out, detect([video], workplace.openvino, out, SETTINGS, Events("detect", workplace.root / "events.jsonl"))


def test_boxes_are_those_of_yolo_predict(found: tuple[Path, Summary], weights: Path, video: Path) -> None:
    """The whole way (decoder, resampling, OpenVINO, suppression) against Ultralytics with the same weights."""
    from ultralytics import YOLO

    answers = YOLO(str(weights)).predict(str(video), imgsz=160, stream=True, device="cpu", verbose=False)
    total = 0
    for line, answer in zip(lines(found[0]), answers, strict=True):
        sure = answer.boxes[answer.boxes.conf > CONFIDENT]
        theirs = Boxes.truth(sure.xyxy.numpy(), sure.cls.numpy())
        ours = boxes_of(line)
        first, second = match(theirs, ours, 0.9)
        assert len(first) == len(theirs), f"frame {line['frame']}: {theirs.xyxy.tolist()} but {line['boxes']}"
        difference = answer.boxes.conf[answer.boxes.conf > CONFIDENT].numpy()[first] - np.array(
            [line["boxes"][index]["confidence"] for index in second]
        )
        assert np.abs(difference).max(initial=0) < 0.1
        total += len(theirs)
    assert total >= 20, "the detector of the tests finds too little to compare"


def test_video_keeps_frames_rate_and_size(found: tuple[Path, Summary], video: Path) -> None:
    frames, times, stream = decoded(found[0] / "annotated.mp4")
    before, times_before, source = decoded(video)
    assert len(frames) == len(before) == 12
    assert times == pytest.approx(times_before)
    assert stream.average_rate == source.average_rate == 25
    assert frames[0].shape == before[0].shape == (180, 320, 3)
    assert stream.pix_fmt == "yuv420p"
    content = (found[0] / "annotated.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "plays only when it is wholly loaded"


def test_each_frame_carries_its_own_boxes(found: tuple[Path, Summary], video: Path) -> None:
    """Frames do not change places: outside of what is drawn the picture is that of the same frame of the input."""
    frames, _, _ = decoded(found[0] / "annotated.mp4")
    before, _, _ = decoded(video)
    for index, (after, original, line) in enumerate(zip(frames, before, lines(found[0]), strict=True)):
        differences = [np.abs(after.astype(int) - other.astype(int)).mean() for other in before]
        assert int(np.argmin(differences)) == index
        assert np.abs(after.astype(int) - original.astype(int)).mean() < 12
        for box in line["boxes"]:
            x0, y0, x1, _ = (2 * round(value / 2) for value in box["xyxy"])
            if y0 + 2 > after.shape[0] or x1 - x0 < 40:
                continue
            edge = after[y0 : y0 + 2, x0 + 20 : x1 - 20].reshape(-1, 3).mean(axis=0)
            assert np.abs(edge - class_colour(box["class"])).max() < 60, "the line is not in the class's colour"


def test_tables_agree_with_each_other(found: tuple[Path, Summary]) -> None:
    out, summary = found
    per_frame = lines(out)
    assert [line["frame"] for line in per_frame] == list(range(12))
    assert [line["time_s"] for line in per_frame] == pytest.approx([index / 25 for index in range(12)])
    with (out / "detections.csv").open() as file:
        rows = list(csv.DictReader(file))
    flat = [(line["frame"], box) for line in per_frame for box in line["boxes"]]
    assert len(rows) == len(flat) == sum(summary.sources[0].boxes.values())
    for row, (frame, box) in zip(rows, flat, strict=True):
        assert (int(row["frame"]), row["name"], float(row["confidence"])) == (frame, box["name"], box["confidence"])
        assert [float(row[key]) for key in ("x0", "y0", "x1", "y1")] == box["xyxy"]
        assert NAMES[box["class"]] == box["name"]
    with (out / "counts.csv").open() as file:
        counts = list(csv.DictReader(file))
    for name in NAMES:
        assert sum(int(row[name]) for row in counts) == summary.sources[0].boxes[name]
    for name in ("preview.jpg", "counts.png"):
        assert cv2.imread(str(out / name)).std() > 10
    assert sorted(path.name for path in out.iterdir()) == [
        *("annotated.mp4", "counts.csv", "counts.png", "detections.csv", "detections.jsonl"),
        *("preview.jpg", "summary.json"),
    ]


def test_accuracy_against_the_truth_beside_the_video(found: tuple[Path, Summary], video: Path) -> None:
    accuracy = found[1].sources[0].accuracy
    assert accuracy is not None
    right = boxes = true = 0
    for line, text in zip(lines(found[0]), video.with_suffix(".jsonl").read_text().splitlines(), strict=True):
        ours, truth = boxes_of(line), boxes_of(json.loads(text))
        right += len(match(ours, truth, 0.5)[0])
        boxes, true = boxes + len(ours), true + len(truth)
    assert accuracy["true_boxes"] == true == 24
    assert accuracy["precision"] == pytest.approx(right / boxes, abs=1e-4)
    assert accuracy["recall"] == pytest.approx(right / true, abs=1e-4)
    assert accuracy["recall"] > 0.8


def test_again_gives_the_same_files(
    found: tuple[Path, Summary], workplace: Workplace, video: Path, tmp_path: Path
) -> None:
    again = detect([video], workplace.openvino, tmp_path, SETTINGS)
    for path in found[0].iterdir():
        if path.name != "summary.json":  # names the folder
            assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    assert again.sources[0].boxes == found[1].sources[0].boxes


def test_progress_is_told(found: tuple[Path, Summary], workplace: Workplace) -> None:
    events = [json.loads(line) for line in (workplace.root / "events.jsonl").read_text().splitlines()]
    last = [event for event in events if event["kind"] == "progress"][-1]
    assert (last["done"], last["total"], last["unit"]) == (12, 12, "frames")


def test_odd_sides_are_padded(workplace: Workplace, tmp_path: Path) -> None:
    path = write_video(tmp_path / "odd.mkv", frames=3, height=135, width=241, pixels="yuv444p")
    summary = detect([path], workplace.openvino, tmp_path / "out", SETTINGS)
    frames, _, _ = decoded(tmp_path / "out/annotated.mp4")
    assert summary.sources[0].size == (135, 241)
    assert [frame.shape for frame in frames] == [(136, 242, 3)] * 3
    before = scene(200, 135, 241)[0]
    assert np.abs(frames[0][:135, :241].astype(int) - before.astype(int)).mean() < 15


def test_phone_video_is_turned_upright(workplace: Workplace, tmp_path: Path) -> None:
    """OpenCV turns frames as the camera says; so must we."""
    path = write_video(tmp_path / "phone.mp4", frames=3, rotation=90)
    capture = cv2.VideoCapture(str(path))
    upright = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
    capture.release()
    assert upright.shape == (320, 180, 3)
    summary = detect([path], workplace.openvino, tmp_path / "out", SETTINGS)
    frames, _, stream = decoded(tmp_path / "out/annotated.mp4")
    assert summary.sources[0].size == (320, 180)
    assert (stream.height, stream.width) == (320, 180)
    assert np.abs(frames[0].astype(int) - upright.astype(int)).mean() < 12


def test_uneven_timestamps_are_kept(workplace: Workplace, tmp_path: Path) -> None:
    ticks = [0, 40, 55, 180, 200, 700, 1000]
    path = write_video(tmp_path / "uneven.mkv", frames=7, ticks=ticks)
    detect([path], workplace.openvino, tmp_path / "out", SETTINGS)
    _, times, _ = decoded(tmp_path / "out/annotated.mp4")
    assert times == pytest.approx([tick / 1000 for tick in ticks], abs=2e-3)
    assert [line["time_s"] for line in lines(tmp_path / "out")] == pytest.approx([tick / 1000 for tick in ticks])


def test_truncated_video_gives_what_decodes(
    workplace: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = index_first(write_video(tmp_path / "whole.mp4", frames=30))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: len(content) * 6 // 10])
    summary = detect([cut], workplace.openvino, tmp_path / "out", SETTINGS).sources[0]
    assert summary.declared_frames == 30
    assert 5 < summary.frames < 30
    frames, _, _ = decoded(tmp_path / "out/annotated.mp4")
    assert len(frames) == len(lines(tmp_path / "out")) == summary.frames
    assert f"cut.mp4: damaged; {summary.frames} of 30 frames" in capsys.readouterr().out


def test_folder_of_images(workplace: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_split(tmp_path, "test", range(300, 303), 180, 320)
    write_split(tmp_path, "test", range(303, 305), 200, 150)
    folder = tmp_path / "images/test"
    (folder / "301.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    summary = detect([folder], workplace.openvino, tmp_path / "out", SETTINGS).sources[0]
    assert (summary.kind, summary.frames, summary.unreadable) == ("images", 4, 1)
    assert [line["image"] for line in lines(tmp_path / "out")] == ["300.png", "302.png", "303.png", "304.png"]
    assert cv2.imread(str(tmp_path / "out/images/303.png.jpg")).shape == (200, 150, 3)
    assert "1 of 5 images cannot be read" in capsys.readouterr().out
    truth = Boxes.truth([xyxy for _, xyxy in scene(300, 180, 320)[1]], [kind for kind, _ in scene(300, 180, 320)[1]])
    ours = boxes_of(lines(tmp_path / "out")[0])
    assert iou(truth.xyxy, ours.xyxy).max(axis=1).min() > 0.5


def test_several_sources_have_a_folder_each(workplace: Workplace, tmp_path: Path) -> None:
    sources = [write_video(tmp_path / "a.mp4", frames=2), write_video(tmp_path / "b.mp4", frames=3)]
    (tmp_path / "more").mkdir()
    sources.append(write_video(tmp_path / "more/a.mp4", frames=4))
    summary = detect(sources, workplace.openvino, tmp_path / "out", SETTINGS)
    assert [source.frames for source in summary.sources] == [2, 3, 4]
    assert [len(lines(tmp_path / "out" / name)) for name in ("a", "b", "a-2")] == [2, 3, 4]
    assert len(json.loads((tmp_path / "out/summary.json").read_text())["sources"]) == 3


def test_killed_run_leaves_no_half_file(workplace: Workplace, tmp_path: Path) -> None:
    """And the next run clears up after it."""
    path = write_video(tmp_path / "long.mp4", frames=400, height=360, width=640)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ml.detect", str(path), "--model", str(workplace.openvino), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if any(file.stat().st_size for file in out.glob(".partial-*/detections.jsonl")):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "it had ended before it could be killed"
    assert [item.name for item in out.iterdir()] == [f".partial-{process.pid}"]
    detect([write_video(tmp_path / "short.mp4", frames=2)], workplace.openvino, out, SETTINGS)
    assert not list(out.glob(".partial-*"))
    assert len(decoded(out / "annotated.mp4")[0]) == 2


class TestFaults:
    """Each is a message for a person, before anything is written."""

    def fails(self, workplace: Workplace, tmp_path: Path, *sources: Path, model: Path | None = None) -> str:
        with pytest.raises(UserError) as caught:
            detect(sources, model or workplace.openvino, tmp_path / "out", SETTINGS)
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
        return str(caught.value)

    def test_all_bad_sources_at_once(self, workplace: Workplace, tmp_path: Path) -> None:
        (tmp_path / "empty.mp4").touch()
        (tmp_path / "text.mp4").write_text("no video " * 500)
        (tmp_path / "folder").mkdir()
        names = ("missing.mp4", "empty.mp4", "text.mp4", "folder")
        text = self.fails(workplace, tmp_path, *(tmp_path / name for name in names))
        assert "missing.mp4: there is no such file" in text
        assert "empty.mp4: is empty" in text
        assert "text.mp4: cannot be read as a video" in text
        assert "folder: this folder holds no images" in text

    def test_not_one_frame(self, workplace: Workplace, tmp_path: Path) -> None:
        content = index_first(write_video(tmp_path / "whole.mp4", frames=5))
        path = tmp_path / "nothing.mp4"
        path.write_bytes(content[: content.index(b"mdat") + 8])
        assert "not one frame of it can be decoded" in self.fails(workplace, tmp_path, path)

    def test_sound_only(self, workplace: Workplace, tmp_path: Path) -> None:
        path = tmp_path / "sound.wav"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            frame.rate = 8000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        assert "holds no video" in self.fails(workplace, tmp_path, path)

    def test_weights_instead_of_export(self, workplace: Workplace, tmp_path: Path, video: Path) -> None:
        text = self.fails(workplace, tmp_path, video, model=workplace.models / "model.pt")
        assert "is a weights file" in text
        assert "OpenVINO" in text

    def test_incomplete_model(self, workplace: Workplace, tmp_path: Path, video: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model/model.xml").write_bytes((workplace.openvino / "model.xml").read_bytes())
        text = self.fails(workplace, tmp_path, video, model=tmp_path / "model")
        assert "model.bin: there is no such file" in text
        assert "metadata.yaml: there is no such file" in text

    def test_damaged_model(self, workplace: Workplace, tmp_path: Path, video: Path) -> None:
        (tmp_path / "model").mkdir()
        for path in workplace.openvino.iterdir():
            (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
        (tmp_path / "model/model.xml").write_text("<net>")
        assert "is no OpenVINO network" in self.fails(workplace, tmp_path, video, model=tmp_path / "model")

    def test_bad_truth(self, workplace: Workplace, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4", frames=2)
        path.with_suffix(".jsonl").write_text('{"frame": 0, "boxes": [{"class": 9, "xyxy": [0, 0, 1, 1]}]}\nnonsense\n')
        text = self.fails(workplace, tmp_path, path)
        assert "a.jsonl:1: names a class outside 0 to 1" in text
        assert "a.jsonl:2: is no ground truth of a frame" in text

    def test_bad_option(self) -> None:
        with pytest.raises(UserError, match=r"--imgsz: is 100"):
            main(["a.mp4", "--imgsz", "100"])

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
    def test_folder_that_cannot_be_written(self, workplace: Workplace, tmp_path: Path, video: Path) -> None:
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(UserError, match="cannot be written"):
                detect([video], workplace.openvino, tmp_path / "out", SETTINGS)
        finally:
            tmp_path.chmod(0o700)
