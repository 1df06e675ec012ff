"""A training for tests of gangs: a few weights, a checkpoint each step, and failures on order. Any torchrun runs it."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds a step")
    parser.add_argument("--fail-rank", type=int)
    parser.add_argument("--fail-step", type=int, default=2)
    parser.add_argument("--fail-code", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    checkpoint = Path(os.environ["MLOPS_CHECKPOINTS"]) / "toy.json"
    state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"step": 0, "weights": [0.0] * 4}
    # All ranks begin where rank 0 begins: another may have read a checkpoint that is a step older.
    box = [state]
    dist.broadcast_object_list(box, src=0)
    weights = torch.tensor(box[0]["weights"], dtype=torch.float64)
    print(f"begins at step {box[0]['step']} as {rank} of {size}", flush=True)
    for step in range(box[0]["step"], options.steps):
        if rank == options.fail_rank and step == options.fail_step:
            print("the toy is broken here", file=sys.stderr, flush=True)
            # At once: Python's own end, with the group's threads alive, is now and then an abort of theirs.
            os._exit(options.fail_code)
        # The mean over all ranks does not depend on how many there are: any gang must end with the same weights.
        gradient = weights - torch.arange(4, dtype=torch.float64) - step
        dist.all_reduce(gradient)
        weights -= 0.1 * gradient / size
        if rank == 0:
            part = checkpoint.with_suffix(".part")
            part.write_text(json.dumps({"step": step + 1, "weights": weights.tolist()}))
            part.replace(checkpoint)
            event(step + 1, options.steps, float(weights.square().sum()))
        print(f"step {step + 1}", flush=True)
        time.sleep(options.pause)
    print(f"weights {hashlib.sha256(weights.numpy().tobytes()).hexdigest()[:12]}", flush=True)
    if rank == 0:
        output = Path(os.environ["MLOPS_OUTPUT"])
        (output / "weights.json").write_text(json.dumps(weights.tolist()))
        (output / "metrics.json").write_text(json.dumps({"size": size, "steps": options.steps}))
    dist.destroy_process_group()


def event(step: int, steps: int, loss: float) -> None:
    line = {"time": time.time(), "stage": "toy", "kind": "epoch", "epoch": step, "epochs": steps}
    with Path(os.environ["MLOPS_EVENTS"]).open("a") as file:
        file.write(json.dumps({**line, "metrics": {"loss": loss}}) + "\n")


if __name__ == "__main__":
    main()
