"""One training from a recipe to its output files: find out what is left to do, do it, keep it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import SupportsFloat

from configs.problems import Problem, UserError
from configs.recipe import Recipe
from ml.events import Events
from ml.quiet import quiet_libraries
from ml.turns import one_training
from ml.yolov5 import inputs, results
from ml.yolov5.checkpoints import Checkpoints, State, write_atomically
from ml.yolov5.progress import Display
from ml.yolov5.settings import Settings, decide, keep_freed_memory

_KEPT_TRAININGS = 3


def train(recipe: Recipe, events: Events, state: Path, check: Callable[[], None]) -> None:
    """Train the recipe's detector and write the stage's outputs below the current folder.

    A training with the same inputs that was finished before is only given out again; one that was interrupted goes on
    after its last whole epoch.

    Args:
        recipe: the whole recipe.
        events: where progress goes.
        state: the folder that trainings are kept in, below ``training/``.
        check: called after every batch; raises to stop the training.

    Raises:
        UserError: no data, no such model or device, no space, no memory, or the losses diverged.
    """
    with Display(events, recipe.train.epochs) as display, _explained(recipe, check):
        inputs.check_data(recipe.data.path)
        quiet_libraries()
        model = inputs.resolve_model(recipe.train.model, state / "weights")
        folder = state / "training" / inputs.key(recipe, model, inputs.digest(recipe.data.path))
        with _alone_in(folder), one_training(display.say):
            files = None if os.environ.get("MLOPS_FORCE") else results.sealed(folder)
            if files is None:
                files = results.outputs(recipe, _run(recipe, model, folder, display, check))
                results.seal(folder, files)
                Checkpoints(folder).clear()
            else:
                display.say("trained before from the same data, recipe and libraries: its weights are used again")
            for path, content in files.items():
                write_atomically(Path(path), content)
        _prune(folder)
        display.say(f"weights in {results.MODEL}, metrics in {results.METRICS}")


def _run(recipe: Recipe, model: str, folder: Path, display: Display, check: Callable[[], None]) -> State:
    """Train to the end; the state after the last epoch."""
    keep_freed_memory()
    from ml.yolov5.trainer import Watcher, Yolov5Training

    checkpoints = Checkpoints(folder)
    earlier = checkpoints.load(display.say)
    settings = _same_settings(decide(recipe.train), earlier)
    _announce(display, recipe, settings, earlier)
    last: State = earlier or {}

    def batch(epoch: int, done: int, batches: int, sums: Mapping[str, SupportsFloat]) -> None:
        check()
        display.batch(epoch, done, batches, sums)

    def epoch(row: dict[str, float], current: Callable[[], State]) -> None:
        nonlocal last
        last = current()
        checkpoints.save(int(row["epoch"]), last)
        display.epoch(row)
        check()

    with tempfile.TemporaryDirectory(prefix="scratch-", dir=folder) as scratch:
        training = Yolov5Training(recipe, model, settings, Path(scratch), Watcher(batch, epoch), earlier)
        training.prepare()
        for name, reason in training.dropped().items():
            display.say(f"not used: {name}: {reason}")
        display.begin()
        training.train()
    return last


def _same_settings(settings: Settings, earlier: State | None) -> Settings:
    """Go on as the training began where the device is the same: another thread count would give other weights."""
    if earlier is not None and earlier["settings"]["device"] == settings.device:
        return Settings(**earlier["settings"])
    return settings


def _announce(display: Display, recipe: Recipe, settings: Settings, earlier: State | None) -> None:
    train = recipe.train
    begun = earlier["epochs"] if earlier else 0
    params = {
        "model": train.model,
        "device": settings.device,
        "precision": settings.precision,
        "threads": str(settings.threads),
        "workers": str(settings.workers),
        "resumed_from_epoch": str(begun),
    }
    where = f"{settings.device} in {settings.precision}, {settings.threads} thread{'s' * (settings.threads > 1)}"
    again = f", going on after epoch {begun}" if begun else ""
    display.say(f"training {train.model} at {train.imgsz} px, {train.epochs} epochs on {where}{again}", params)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the training's folder; the lock goes with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                Problem(str(folder), "the same training is running in another process", "wait for it, or stop it")
            ) from None
        for leftover in folder.glob("scratch-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def _prune(current: Path) -> None:
    """Remove all but the most recently used trainings; one that runs is left alone."""
    folders = sorted(
        (path for path in current.parent.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
    )
    for folder in folders[:-_KEPT_TRAININGS]:
        if folder != current:
            with contextlib.suppress(UserError, OSError), _alone_in(folder):
                shutil.rmtree(folder)


@contextlib.contextmanager
def _explained(recipe: Recipe, check: Callable[[], None]) -> Iterator[None]:
    """Turn what a person can mend into a ``UserError``, unless ``check`` says that the training was to stop."""
    smaller = f"set train.batch lower (now {recipe.train.batch})"
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise UserError(Problem("train", "the memory is not enough", f"{smaller}, or train.cache to none")) from None
    except OSError as error:
        where = str(error.filename or "the checkout's disk")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                Problem(where, "the disk is full", "make room and start again: it goes on after its last whole epoch")
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(Problem(where, f"cannot be written: {error.strerror}", "make it writable")) from None
        raise
    except RuntimeError as error:
        text = str(error)
        if "out of memory" in text or "can't allocate memory" in text:
            raise UserError(Problem("train.batch", "the memory is not enough", smaller)) from None
        if "DataLoader worker" in text:
            check()  # Ctrl-C, and a service's stop, reach the loader processes as well
            remedy = "set train.workers to 0, or give /dev/shm more room"
            raise UserError(Problem("train.workers", "a loader process died", remedy)) from None
        raise
