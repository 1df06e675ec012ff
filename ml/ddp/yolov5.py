"""YOLOv5 over several processes and machines: the recipe's detector, trained as ``python -m ml.train`` does.

    torchrun --nproc-per-node=2 -m ml.ddp.yolov5 --recipe configs/forklift.yaml

The recipe's batch is that of all ranks together. Killed and started again, also with another number of ranks, it goes
on after its last whole epoch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import SupportsFloat

import torch

from configs.problems import run_main
from configs.recipe import Recipe, load_recipe
from ml.ddp.world import Snapshots, World, folder, join
from ml.events import Events
from ml.quiet import quiet_libraries
from ml.yolov5 import inputs, results
from ml.yolov5.checkpoints import State, write_atomically
from ml.yolov5.progress import Display
from ml.yolov5.settings import Settings, decide, keep_freed_memory


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, required=True, help="for example configs/forklift.yaml")
    parser.add_argument("--epochs", type=int, default=0, help="0 for the recipe's")
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    if data := os.environ.get("MLOPS_DATA"):
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": Path(data)})})
    if options.epochs:
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": options.epochs})})
    with join() as world:
        # Ultralytics would take itself for one of its own workers; it is to know of one process only.
        for name in ("RANK", "LOCAL_RANK"):
            os.environ.pop(name, None)
        train(recipe, world)


def train(recipe: Recipe, world: World) -> None:
    """Train to the last epoch, and write ``model.pt`` and ``metrics.json``.

    Raises:
        UserError: no data, no such model or device, or the losses diverged.
    """
    inputs.check_data(recipe.data.path)
    quiet_libraries()
    keep_freed_memory()
    from ml.ddp.yolov5_training import DistributedTraining
    from ml.yolov5.trainer import Watcher

    model = inputs.resolve_model(recipe.train.model, folder("MLOPS_CHECKPOINTS"))
    snapshots = Snapshots(world)
    last = snapshots.load()
    # Only rank 0 tells: the others have no events and no terminal.
    display = Display(Events("train", None if world.rank == 0 else Path(os.devnull)), recipe.train.epochs)
    settings = settings_of(recipe, world)
    if world.rank == 0:
        again = f", going on after epoch {last['epochs']}" if last else ""
        params = {"device": settings.device, "precision": settings.precision, "world_size": str(world.size)}
        display.say(f"training {recipe.train.model} on {world.size} ranks with {settings.device}{again}", params)

    def batch(epoch: int, done: int, batches: int, sums: Mapping[str, SupportsFloat]) -> None:
        if world.rank == 0:
            display.batch(epoch, done, batches, sums)

    def epoch(row: dict[str, float], current: Callable[[], State]) -> None:
        nonlocal last
        last = current()
        snapshots.save(int(row["epoch"]), last)
        if world.rank == 0:
            rate = last["images"] / row["seconds"]
            display.epoch({**row, "samples_per_s": rate})

    with tempfile.TemporaryDirectory(prefix="yolov5-") as scratch, display:
        training = DistributedTraining(world, recipe, model, settings, Path(scratch), Watcher(batch, epoch), last)
        training.prepare()
        display.begin()
        training.train()
        sha256 = results.weights_sha256(training.model.state_dict())
    print(f"rank {world.rank} of {world.size}: weights {sha256}", flush=True)
    if world.rank == 0 and last is not None:
        write_results(recipe, last)


def settings_of(recipe: Recipe, world: World) -> Settings:
    """Return how each rank trains: its own device, the threads that it was given, its part of the loader processes."""
    settings = decide(recipe.train)
    device = str(world.device) if world.device.type == "cuda" else settings.device
    workers = settings.workers
    if recipe.train.workers < 0 and workers:
        workers = max(1, workers // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return dataclasses.replace(settings, device=device, threads=torch.get_num_threads(), workers=workers)


def write_results(recipe: Recipe, state: State) -> None:
    """Write what is to be registered: the best epoch's weights, and its metrics on the val split."""
    output = folder("MLOPS_OUTPUT")
    write_atomically(output / "model.pt", results.model_file(recipe, state))
    metrics = {"epochs": len(state["history"]), "best_epoch": state["best"]["epoch"], **state["best"]["metrics"]}
    write_atomically(output / "metrics.json", json.dumps(metrics, indent=2).encode())


if __name__ == "__main__":
    run_main(main)
