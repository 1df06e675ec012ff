"""`python -m ml.detect` against `yolo predict` on one video: frames a second, CPU, memory, and whether boxes agree.

Both are whole commands, started anew each time, at the same resolution, annotating and saving the video; everything
else at its defaults. They run in turns; the order changes from pair to pair. Prints a Markdown table.

    python benchmarks/detect_video.py --weights models/model.pt --model models/openvino --video data/video/warehouse.mp4
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import av
import numpy as np

from benchmarks.commands import Cost, run
from configs.recipe import DetectSection
from ml.boxes.geometry import Boxes, iou, match

DETECT = "ml.detect"
YOLO = "yolo predict"
CONFIDENT = 0.4


def agreement(labels: Path, stem: str, detections: Path, size: tuple[int, int]) -> tuple[int, int, float]:
    """Boxes of `yolo predict` over ``CONFIDENT``, how many of them ml.detect has too (IoU over 0.9), median IoU."""
    height, width = size
    total = agreed = 0
    overlaps: list[float] = []
    for line in detections.read_text(encoding="utf-8").splitlines():
        frame = json.loads(line)
        ours = Boxes.truth([box["xyxy"] for box in frame["boxes"]], [box["class"] for box in frame["boxes"]])
        label = labels / f"{stem}_{frame['frame'] + 1}.txt"
        rows = np.loadtxt(label, ndmin=2) if label.is_file() else np.zeros((0, 6))
        rows = rows[rows[:, 5] > CONFIDENT]
        corners = np.concatenate([rows[:, 1:3] - rows[:, 3:5] / 2, rows[:, 1:3] + rows[:, 3:5] / 2], axis=1)
        theirs = Boxes.truth(corners * np.array([width, height] * 2), rows[:, 0])
        first, second = match(theirs, ours, 0.5)
        pairs = iou(theirs.xyxy[first], ours.xyxy[second]).diagonal()
        total, agreed = total + len(theirs), agreed + int((pairs > 0.9).sum())
        overlaps += pairs.tolist()
    return total, agreed, statistics.median(overlaps) if overlaps else float("nan")


def main() -> None:
    """Run the pairs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("models/model.pt"))
    parser.add_argument("--model", type=Path, default=Path("models/openvino"))
    parser.add_argument("--video", type=Path, default=Path("data/video/warehouse.mp4"))
    parser.add_argument("--imgsz", type=int, default=DetectSection().imgsz)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    with av.open(str(options.video)) as container:
        stream = container.streams.video[0]
        size = (stream.height, stream.width)
        frames = sum(1 for _ in container.decode(stream))
    scratch = Path(tempfile.mkdtemp(prefix="detect-video-"))
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(scratch / "yolo"), "YOLO_OFFLINE": "true"}
    (scratch / "yolo").mkdir()
    predict = [shutil.which("yolo") or "yolo", "predict", f"model={options.weights}", f"source={options.video}"]
    predict += [f"imgsz={options.imgsz}", "save=True", "device=cpu", f"project={scratch}", "exist_ok=True"]
    ours = [sys.executable, "-m", DETECT, str(options.video), "--model", str(options.model)]
    ours += ["--imgsz", str(options.imgsz), "--out", str(scratch / "ours")]
    commands = {YOLO: [*predict, "name=timed"], DETECT: ours}
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    try:
        # Boxes in text cost time: a run of their own, which also warms the disk cache for both.
        run([*predict, "name=boxes", "save_txt=True", "save_conf=True"], environment)
        for pair in range(options.pairs):
            for name in sorted(commands, reverse=bool(pair % 2)):
                costs[name].append(run(commands[name], environment))
                print(f"pair {pair + 1}: {name}: {frames / costs[name][-1].wall_s:.1f} frames/s", file=sys.stderr)
        boxes = agreement(scratch / "boxes/labels", options.video.stem, scratch / "ours/detections.jsonl", size)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(
        f"{options.video.name}: {frames} frames of {size[1]}x{size[0]}, imgsz {options.imgsz}, {os.cpu_count()} cores\n"
    )
    print("| command | frames/s | frames per CPU second | peak memory, MiB |")
    print("|---|---|---|---|")
    for name, all_costs in costs.items():
        speed = statistics.median(frames / cost.wall_s for cost in all_costs)
        cpu = statistics.median(frames / cost.cpu_s for cost in all_costs)
        memory = statistics.median(cost.memory_mib for cost in all_costs)
        print(f"| `{name}` | {speed:.1f} | {cpu:.1f} | {memory:.0f} |")
    pairs = list(zip(costs[DETECT], costs[YOLO], strict=True))
    wall = [theirs.wall_s / mine.wall_s for mine, theirs in pairs]
    cpu_ratio = statistics.median(theirs.cpu_s / mine.cpu_s for mine, theirs in pairs)
    print(
        f"\nRatio of frames/s, median of {len(wall)} pairs: **{statistics.median(wall):.1f}** "
        f"({min(wall):.1f} to {max(wall):.1f}); of frames per CPU second: {cpu_ratio:.1f}."
    )
    total, agreed, median = boxes
    print(f"Boxes of `{YOLO}` over {CONFIDENT}: {total}; IoU over 0.9 in both: {agreed}; median IoU {median:.3f}.")


if __name__ == "__main__":
    main()
