"""The stage ``train`` against ``yolo detect train`` with its defaults, in interleaved pairs.

    python benchmarks/train_stage.py --data data --pairs 3 --seeds 0 1 2 --images 800 --epochs 7

Both train the recipe's model yaml from scratch on the same images, epochs and resolution and validate after each
epoch; everything else is the recipe's here and Ultralytics' default there. Wall and CPU time are of the whole process,
start to exit. The weights of each seed are judged on the test split by ``YOLO.val``, alike for both.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.commands import run

ROOT = Path(__file__).parents[1]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Measured:
    """One training: seconds, megabytes, mAP50 on the test split."""

    wall: float
    cpu: float
    memory: float
    map50: float


def main() -> None:
    """Read the command line, measure, print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=ROOT / "configs/forklift.yaml")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder in YOLO layout with a test split")
    parser.add_argument("--pairs", type=int, default=3, help="pairs to measure; the seeds are taken in turn")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=0, help="train images, 0 for all; val and test in proportion")
    parser.add_argument("--epochs", type=int, default=0, help="0 for the recipe's")
    parser.add_argument("--threads", type=int, default=0, help="ours, 0 for the recipe's; theirs: cores less one")
    options = parser.parse_args()
    recipe = yaml.safe_load(options.recipe.read_text(encoding="utf-8"))
    recipe["data"]["path"] = "data"
    recipe["train"]["epochs"] = options.epochs or recipe["train"].get("epochs", 7)
    if options.threads:
        recipe["train"]["threads"] = options.threads
    measured: dict[str, list[Measured]] = {"ours": [], "yolo": []}
    with tempfile.TemporaryDirectory(prefix="bench-train-") as name:
        folder = Path(name)
        os.environ.update(YOLO_CONFIG_DIR=str(folder / "ultralytics"), YOLO_OFFLINE="true")
        (folder / "ultralytics").mkdir()
        dataset = link_subset(options.data, folder / "data", options.images, recipe["data"]["classes"])
        for pair in range(options.pairs):
            seed = options.seeds[pair % len(options.seeds)]
            for side in ("ours", "yolo") if pair % 2 == 0 else ("yolo", "ours"):
                run = run_ours if side == "ours" else run_yolo
                measured[side].append(run(folder, dataset, recipe, seed))
                print(f"{side} seed {seed}: {measured[side][-1]}", file=sys.stderr, flush=True)
    print(table(measured, recipe, options))


def link_subset(source: Path, target: Path, images: int, classes: list[str]) -> Path:
    """Copy the first images of each split; the dataset yaml that Ultralytics reads."""
    total = len(list((source / "images/train").iterdir()))
    share = min(1.0, images / total) if images else 1.0
    for split in SPLITS:
        paths = sorted((source / "images" / split).iterdir())
        for kind in ("images", "labels"):
            (target / kind / split).mkdir(parents=True)
        for path in paths[: max(1, round(len(paths) * share))]:
            shutil.copy(path, target / "images" / split)
            label = source / "labels" / split / f"{path.stem}.txt"
            if label.exists():
                shutil.copy(label, target / "labels" / split)
    described = {
        "path": str(target),
        **{split: f"images/{split}" for split in SPLITS},
        "names": dict(enumerate(classes)),
    }
    dataset = target.parent / "dataset.yaml"
    dataset.write_text(yaml.safe_dump(described), encoding="utf-8")
    return dataset


def run_ours(folder: Path, dataset: Path, recipe: dict, seed: int) -> Measured:
    """The stage, with an empty state folder: nothing is resumed."""
    work = Path(tempfile.mkdtemp(dir=folder))
    (work / "data").symlink_to(folder / "data")
    path = work / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, "train": {**recipe["train"], "seed": seed}}), encoding="utf-8")
    command = [sys.executable, "-m", "ml.train", "--recipe", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLOPS_HOME": str(work / "state")}
    return judged(command, work, environment, work / "models/model.pt", dataset, recipe)


def run_yolo(folder: Path, dataset: Path, recipe: dict, seed: int) -> Measured:
    """``yolo detect train``; its label caches are removed, so that each run starts like the first."""
    work = Path(tempfile.mkdtemp(dir=folder))
    for cache in (folder / "data").rglob("*.cache"):
        cache.unlink()
    train = recipe["train"]
    command = [
        str(Path(sys.executable).with_name("yolo")), "detect", "train", f"model={train.get('model', 'yolov5n.yaml')}",
        f"data={dataset}", f"epochs={train['epochs']}", f"imgsz={train.get('imgsz', 224)}", f"seed={seed}",
        f"project={work}", "name=run",
    ]  # fmt: skip
    return judged(command, work, dict(os.environ), work / "run/weights/best.pt", dataset, recipe)


def judged(
    command: list[str], work: Path, environment: dict[str, str], weights: Path, dataset: Path, recipe: dict
) -> Measured:
    """Run ``command`` to its end and judge the weights it leaves on the test split."""
    cost = run(command, environment, work)
    code = (
        "import json, sys; from ultralytics import YOLO; "
        "r = YOLO(sys.argv[1]).val(data=sys.argv[2], split='test', imgsz=int(sys.argv[3]), plots=False, verbose=False,"
        " project=sys.argv[4], device='cpu'); print(json.dumps(float(r.box.map50)))"
    )
    arguments = [str(weights), str(dataset), str(recipe["train"].get("imgsz", 224)), str(work)]
    judge = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=work, capture_output=True, text=True, check=True
    )
    map50 = json.loads(judge.stdout.splitlines()[-1])
    shutil.rmtree(work)
    return Measured(cost.wall_s, cost.cpu_s, cost.memory_mib, map50)


def table(measured: dict[str, list[Measured]], recipe: dict, options: argparse.Namespace) -> str:
    """Medians of both sides and the median of the pairs' ratios, as markdown."""
    ours, yolo = measured["ours"], measured["yolo"]
    seeds = [options.seeds[pair % len(options.seeds)] for pair in range(options.pairs)]
    images = options.images or "all"
    lines = [
        f"{recipe['train'].get('model', 'yolov5n.yaml')}, {images} train images, {recipe['train']['epochs']} epochs at "
        f"{recipe['train'].get('imgsz', 224)} px, {os.cpu_count()} cores, {options.pairs} interleaved pairs",
        "",
        "| | `python -m ml.train` | `yolo detect train` | ratio |",
        "|---|---|---|---|",
    ]
    rows = (("wall, s", "wall", 1), ("CPU, s", "cpu", 1), ("peak memory, MB", "memory", 0))
    for title, field, digits in rows:
        mine, theirs = ([getattr(run, field) for run in side] for side in (ours, yolo))
        ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
        lines.append(
            f"| {title} | {statistics.median(mine):.{digits}f} | {statistics.median(theirs):.{digits}f} | {ratio:.2f} |"
        )
    for seed, a, b in zip(seeds, ours, yolo, strict=True):
        lines.append(f"| mAP50 on test, seed {seed} | {a.map50:.3f} | {b.map50:.3f} | {a.map50 - b.map50:+.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
