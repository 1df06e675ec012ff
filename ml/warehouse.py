"""Draws the shipped dataset: forklifts and persons in a warehouse, as pictures and as a film with its truth.

    python -m ml.warehouse [DIR] [--seed N] [--train N] [--val N] [--test N] [--frames N]

Every picture is drawn from (seed, split, index) alone, so any number of processes gives the same bytes. In the locked
environment the default plan gives the dataset named by :data:`SHIPPED_DIGEST`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path

import cv2
import psutil

from configs.problems import Problem, UserError, run_main
from ml.drawing.film import draw_film
from ml.drawing.scene import SIZE, Label, draw_scene
from ml.events import Events

CLASSES = ("forklift", "person")
SPLITS = ("train", "val", "test")
FILM = 8
"""The film's stream of chance (the splits have 0, 1 and 2), chosen for the hall that it gives."""
SHIPPED_DIGEST = "149aa35c1d14f93c473e6913e4d39fcf.dir"
"""The md5 that DVC gives the folder of the default plan."""
QUALITY = 88
CHUNK = 20
DATASET_YAML = """\
# Drawn warehouse scenes in YOLO layout, made by `python -m ml.warehouse`; free to use under the project's licence.
# Boxes enclose what is visible. video/warehouse.jsonl holds the film's boxes, one line a frame, in pixels.
path: .
train: images/train
val: images/val
test: images/test
names:
  0: forklift
  1: person
"""


@dataclass(frozen=True)
class Plan:
    """What to draw: the seed, pictures of each split, frames of the film (0 for none)."""

    seed: int = 0
    train: int = 800
    val: int = 150
    test: int = 150
    frames: int = 300

    def pictures(self) -> int:
        """Pictures of all splits together."""
        return self.train + self.val + self.test


def draw_dataset(root: Path, plan: Plan, processes: int | None = None, events: Events | None = None) -> None:
    """Draw the dataset of ``plan`` into ``root``, which must not exist or be empty, with one process a core.

    The folder gets its name when everything is drawn: a killed drawing leaves nothing under it.

    Raises:
        UserError: ``root`` holds something or cannot be written, or the plan asks for less than nothing.
    """
    _check(root, plan)
    processes = processes or os.cpu_count() or 1
    _remove_left_over(root)
    draft = root.parent / f".{root.name}.drawing-{os.getpid()}"
    try:
        _draw_into(draft, plan, processes, events)
        draft.rename(root)
    except OSError as error:
        raise UserError(Problem(str(error.filename or draft), f"cannot be written: {error.strerror}")) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _draw_into(draft: Path, plan: Plan, processes: int, events: Events | None) -> None:
    for split in SPLITS:
        (draft / "images" / split).mkdir(parents=True)
        (draft / "labels" / split).mkdir(parents=True)
    ignore = draft / ".gitignore"
    ignore.write_text("*\n")
    (draft / "dataset.yaml").write_text(DATASET_YAML, encoding="utf-8", newline="\n")
    total, done, started = plan.pictures() + plan.frames, 0, time.monotonic()
    for drawn in _drawn(draft, plan, processes):
        done += drawn
        _show(done, total, drawn)
        if events is not None:
            events.progress(done, total, "pictures", (time.monotonic() - started) / done * (total - done))
    ignore.unlink()


def _remove_left_over(root: Path) -> None:
    """Remove what drawings that were killed have left beside ``root``."""
    for left in root.parent.glob(f".{root.name}.drawing-*"):
        process = left.suffix.removeprefix(".drawing-")
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            shutil.rmtree(left, ignore_errors=True)


def _check(root: Path, plan: Plan) -> None:
    problems = [
        Problem(f"--{name}", f"is {count}", "give 0 or more") for name, count in vars(plan).items() if count < 0
    ]
    if root.exists() and not root.is_dir():
        problems.append(Problem(str(root), "is a file", "name a folder that does not exist yet"))
    elif root.is_dir() and any(root.iterdir()):
        problems.append(Problem(str(root), "is not empty", "name a folder that does not exist yet, or empty it first"))
    if problems:
        raise UserError(problems)


def _drawn(draft: Path, plan: Plan, processes: int) -> Iterator[int]:
    """Draw everything; yields how many pictures and frames were drawn since."""
    chunks = [
        (split, start, min(start + CHUNK, count))
        for split, count in enumerate((plan.train, plan.val, plan.test))
        for start in range(0, count, CHUNK)
    ]
    if processes == 1:
        yield from _draw_film(draft, plan)
        for split, start, end in chunks:
            yield _draw_pictures(draft, plan.seed, split, start, end)
        return
    # Fresh processes, since a fork of a process with threads (a flow, a tracker) may hang.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_end_with_parent)
    with pool:
        try:
            # The film is one long job: it starts first.
            jobs: list[Future[int]] = [pool.submit(_draw_whole_film, draft, plan)] if plan.frames else []
            jobs += [pool.submit(_draw_pictures, draft, plan.seed, *chunk) for chunk in chunks]
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _draw_pictures(draft: Path, seed: int, split: int, start: int, end: int) -> int:
    for index in range(start, end):
        picture, labels = draw_scene(seed, split, index)
        name = f"{index:05d}"
        path = draft / "images" / SPLITS[split] / f"{name}.jpg"
        written, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        if not written:
            raise RuntimeError(f"OpenCV could not encode {path}")
        path.write_bytes(data.tobytes())
        text = "".join(_yolo(label) for label in labels)
        (draft / "labels" / SPLITS[split] / f"{name}.txt").write_text(text, encoding="utf-8", newline="\n")
    return end - start


def _draw_film(draft: Path, plan: Plan) -> Iterator[int]:
    if plan.frames:
        folder = draft / "video"
        folder.mkdir()
        files = folder / "warehouse.mp4", folder / "warehouse.jsonl"
        for _ in draw_film(*files, CLASSES, plan.seed, FILM, plan.frames):
            yield 1


def _draw_whole_film(draft: Path, plan: Plan) -> int:
    return sum(_draw_film(draft, plan))


def _yolo(label: Label) -> str:
    x0, y0, x1, y1 = label.xyxy
    values = ((x0 + x1) / 2 / SIZE, (y0 + y1) / 2 / SIZE, (x1 - x0) / SIZE, (y1 - y0) / SIZE)
    return f"{label.kind} " + " ".join(f"{value:.6f}" for value in values) + "\n"


def _end_with_parent() -> None:
    """In a drawing process: end when the process that started it is gone, however it went."""
    parent = parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _show(done: int, total: int, drawn: int) -> None:
    if sys.stdout.isatty():
        print(f"\rdrawing the warehouse: {done} of {total}", end="\n" if done == total else "", flush=True)
    elif done == total or done * 10 // total > (done - drawn) * 10 // total:
        print(f"drawing the warehouse: {done} of {total}", flush=True)


def main() -> int:
    """The command line."""
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m ml.warehouse", description="Draws the shipped dataset.")
    parser.add_argument("dir", nargs="?", type=Path, default=Path("data"), help="new folder (default: data)")
    parser.add_argument("--seed", type=int, default=plan.seed, help="another seed gives another dataset (default: 0)")
    for split in SPLITS:
        count = getattr(plan, split)
        parser.add_argument(f"--{split}", type=int, default=count, help=f"pictures to draw (default: {count})")
    parser.add_argument("--frames", type=int, default=plan.frames, help="frames of the film (default: 300)")
    given = parser.parse_args()
    plan = Plan(given.seed, given.train, given.val, given.test, given.frames)
    draw_dataset(given.dir, plan, events=Events("warehouse"))
    print(f"{given.dir}: {plan.pictures()} pictures, {plan.frames} frames")
    return 0


if __name__ == "__main__":
    run_main(main)
