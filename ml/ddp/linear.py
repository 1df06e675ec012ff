"""A linear regression whose answer is known: does training over several processes work here?

    torchrun --nproc-per-node=2 ml/ddp/linear.py --steps 400

The samples are drawn without noise, so the weights learned must be those drawn from, and the same on all ranks. Exit
status 1 where they are not.
"""

from __future__ import annotations

import argparse
import time

import torch

from configs.problems import Problem, UserError, run_main
from ml.ddp.world import Snapshots, World, batches, join, leave
from ml.events import Events

SAMPLES, FEATURES, BATCH = 4096, 16, 256
NEAR = 1e-6
"""Largest difference from the weights drawn that counts as the same, in double precision."""


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="epochs of 16 batches each")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds to wait after each: to see it work")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with join() as world:
        train(options.steps, options.seed, options.pause, world)


def train(steps: int, seed: int, pause: float, world: World) -> None:
    """Train, check the weights, and write ``model.pt`` and ``metrics.json``.

    Raises:
        UserError: the weights are not those drawn from, or not the same on all ranks.
    """
    inputs, targets, weights = draw(seed)
    inputs, targets = inputs.to(world.device), targets.to(world.device)
    model = torch.nn.Linear(FEATURES, 1, dtype=torch.float64)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    snapshots, events = Snapshots(world), Events("ddp")
    state = snapshots.load()
    begun = state["steps"] if state else 0
    if state:
        model.load_state_dict(state["model"])
        print(f"going on after step {begun} with {world.size} ranks", flush=True)
    wrapped = world.wrap(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    loss = torch.zeros(())
    for step in range(begun, steps):
        started = time.monotonic()
        for mine, size in batches(SAMPLES, BATCH, seed, step, world):
            # The ranks' gradients are averaged: times the number of ranks, over the whole batch, makes its mean.
            loss = (wrapped(inputs[mine]) - targets[mine]).square().sum() * world.size / size
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        snapshots.save(step + 1, {"steps": step + 1, "model": model.state_dict()})
        mean = world.sum(loss) / world.size
        if world.rank == 0 and (step + 1) % max(1, steps // 10) == 0:
            rate = SAMPLES / (time.monotonic() - started)
            events.epoch(step + 1, steps, {"loss": mean, "samples_per_s": rate})
            print(f"step {step + 1}/{steps}  loss {mean:.3e}  {rate:.0f} samples/s", flush=True)
        time.sleep(pause)
    check(model, weights, world)
    if world.rank == 0:
        error = float((inputs @ model.weight.detach().T + model.bias.detach() - targets).square().mean())
        leave(model, {"loss": error, "steps": steps})


def draw(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return inputs (samples, features), targets (samples, 1) and the weights (features + 1; the last is the bias)."""
    random = torch.Generator().manual_seed(seed)
    weights = torch.randn(FEATURES + 1, generator=random, dtype=torch.float64)
    inputs = torch.randn(SAMPLES, FEATURES, generator=random, dtype=torch.float64)
    return inputs, (inputs @ weights[:-1] + weights[-1]).unsqueeze(1), weights


def check(model: torch.nn.Linear, weights: torch.Tensor, world: World) -> None:
    """Compare the learned weights with those drawn from, and with those of rank 0."""
    learned = torch.cat((model.weight.detach().flatten(), model.bias.detach())).cpu()
    off = float((learned - weights).abs().max())
    if off > NEAR:
        raise UserError(Problem("ml/ddp/linear.py", f"weights are off by {off:.2e} after training", "train longer"))
    if not torch.equal(learned, world.share(learned)):
        raise UserError(Problem("ml/ddp/linear.py", f"rank {world.rank} has other weights than rank 0"))
    if world.rank == 0:
        print(f"the weights are those drawn from (within {off:.1e}), the same on {world.size} ranks", flush=True)


if __name__ == "__main__":
    run_main(main)
