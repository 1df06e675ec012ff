"""An autoencoder of small grey images (MNIST, Fashion-MNIST) over several processes, in plain PyTorch.

    torchrun --nproc-per-node=2 ml/ddp/autoencoder.py --data fashion-mnist --epochs 20

The images are kept in memory on the device, and each rank takes its part of every batch; the batches do not depend on
the number of ranks. Killed and started again, also with another number of ranks, it goes on after its last whole epoch.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from configs.problems import run_main
from ml.ddp.idx import read_images
from ml.ddp.muon import Muon
from ml.ddp.world import Snapshots, World, batches, folder, join, leave
from ml.events import Events


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=folder("MLOPS_DATA"), help="folder of IDX files")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=256, help="images of all ranks together")
    parser.add_argument("--lr", type=float, default=4e-3, help="of the first step; falls to 0 over all epochs")
    parser.add_argument("--width", type=int, default=64, help="of the hidden layers")
    parser.add_argument("--code", type=int, default=3, help="numbers that an image is reduced to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until", type=float, default=0.0, help="stop at this loss on the test split")
    options = parser.parse_args()
    with join() as world:
        train(options, world)


class Autoencoder(nn.Module):
    """784 pixels to ``code`` numbers and back, with one hidden layer of ``width`` on each side."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, code))
        self.decoder = nn.Sequential(nn.Linear(code, width), nn.ReLU(), nn.Linear(width, 784))

    def forward(self, images: Tensor) -> Tensor:
        """Return the images (batch, 784) as they come back."""
        return self.decoder(self.encoder(images))  # type: ignore[no-any-return]


def train(options: argparse.Namespace, world: World) -> None:
    """Train to the last epoch or the wanted loss, and write ``model.pt`` and ``metrics.json``.

    Raises:
        UserError: the images cannot be read.
    """
    images, test = (torch.from_numpy(read_images(options.data, split).copy()) for split in ("train", "t10k"))
    images, test = (pixels.flatten(1).to(world.device) for pixels in (images, test))
    torch.manual_seed(options.seed)
    model = Autoencoder(options.width, options.code)
    wrapped = world.wrap(model)
    optimizer = Muon(wrapped.parameters(), lr=options.lr)
    snapshots, events = Snapshots(world), Events("ddp")
    state = snapshots.load() or {"epochs": 0, "loss": float("inf")}
    if state["epochs"]:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        print(f"going on after epoch {state['epochs']} with {world.size} ranks", flush=True)
    loss, rate, began = state["loss"], 0.0, time.monotonic()
    for epoch in range(state["epochs"], options.epochs):
        if loss <= options.until:
            break
        started = time.monotonic()
        for number, (mine, size) in enumerate(batches(len(images), options.batch, options.seed, epoch, world)):
            done = (epoch + number * options.batch / len(images)) / options.epochs
            optimizer.param_groups[0]["lr"] = options.lr * (1 - done)
            pixels = images.index_select(0, mine) / 255
            # The ranks' gradients are averaged: times the number of ranks, over the whole batch, makes its mean.
            error = nn.functional.mse_loss(wrapped(pixels), pixels, reduction="sum") * (world.size / size / 784)
            optimizer.zero_grad()
            error.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        rate = len(images) / (time.monotonic() - started)
        loss = judge(model, test, world)
        kept = {"epochs": epoch + 1, "loss": loss, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        snapshots.save(epoch + 1, kept)
        if world.rank == 0:
            left = (time.monotonic() - began) / (epoch + 1 - state["epochs"]) * (options.epochs - epoch - 1)
            events.epoch(epoch + 1, options.epochs, {"loss": loss, "samples_per_s": rate}, left)
            print(f"epoch {epoch + 1}/{options.epochs}  loss {loss:.5f}  {rate:.0f} images/s", flush=True)
    if world.rank == 0:
        print(f"trained in {time.monotonic() - began:.3f} s", flush=True)
        leave(model, {"loss": loss, "samples_per_s": rate})


@torch.no_grad()
def judge(model: Autoencoder, images: Tensor, world: World) -> float:
    """Return the mean square error of a pixel (0 to 1) over ``images`` (count, 784), each rank judging its part."""
    error = torch.zeros((), dtype=torch.float64, device=world.device)
    mine = images[world.rank :: world.size]
    for start in range(0, len(mine), 4096):
        pixels = mine[start : start + 4096] / 255
        error += (model(pixels) - pixels).square().sum()
    return world.sum(error) / images.numel()


if __name__ == "__main__":
    run_main(main)
