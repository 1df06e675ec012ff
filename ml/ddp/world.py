"""The processes that train together: those torchrun started, or this one alone under plain python."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from torch.nn.parallel import DistributedDataParallel

from configs.home import home_folder
from ml.yolov5.checkpoints import Checkpoints, State, write_atomically


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    Attributes:
        rank: from 0; rank 0 writes what is written once.
        size: how many there are, now: it may be another after a restart.
        device: of this process alone.
    """

    rank: int
    size: int
    device: torch.device

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return the model with gradients averaged over all ranks; alone it needs nothing."""
        model = model.to(self.device)
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)

    def sum(self, value: torch.Tensor) -> float:
        """Return the sum of a number of each rank, on all of them."""
        total = value.detach().clone()
        dist.all_reduce(total)
        return float(total)

    def share(self, value: Any) -> Any:
        """Return rank 0's ``value`` on all ranks."""
        shared = [value]
        dist.broadcast_object_list(shared, src=0, device=self.device)
        return shared[0]


@contextmanager
def join() -> Iterator[World]:
    """Join the process group that torchrun's environment describes; without one, be a group of one."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    default = "nccl" if torch.cuda.is_available() else "gloo"
    backend = os.environ.get("MLOPS_BACKEND", default)
    if backend == "nccl":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    yield World(rank, size, device)
    dist.destroy_process_group()  # not after an error: it would wait for ranks that may be gone


class Snapshots:
    """What a training goes on from after a restart: written by rank 0, whole or not at all; the same for all ranks."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._files = Checkpoints(folder("MLOPS_CHECKPOINTS"))

    def load(self) -> State | None:
        """Return the newest whole state, as rank 0 finds it; None: begin at the beginning."""
        state = self._files.load(print) if self.world.rank == 0 else None
        return self.world.share(state)  # type: ignore[no-any-return]

    def save(self, number: int, state: State) -> None:
        """Keep ``state`` after step or epoch ``number``; the one before it is kept, too."""
        if self.world.rank == 0:
            self._files.save(number, state)


def batches(samples: int, batch: int, seed: int, epoch: int, world: World) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield this rank's part of each batch of an epoch, and the size of the whole batch.

    The batches are the same for every number of ranks, so that a training can go on with another: each is a slice of
    the epoch's permutation, dealt out to the ranks. A last batch with fewer samples than ranks is left out.
    """
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    for start in range(0, samples, batch):
        whole = order[start : start + batch]
        if len(whole) >= world.size:
            yield whole[world.rank :: world.size].to(world.device), len(whole)


def leave(model: torch.nn.Module, metrics: Mapping[str, float]) -> None:
    """Leave what is to be registered: the weights as ``model.pt``, the numbers as ``metrics.json``. For rank 0."""
    output = folder("MLOPS_OUTPUT")
    output.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), output / "model.pt")
    write_atomically(output / "metrics.json", json.dumps(metrics).encode())


def folder(variable: str) -> Path:
    """Return the folder that an environment variable names; under plain python one below the state folder."""
    return Path(os.environ.get(variable) or home_folder() / "ddp" / variable.removeprefix("MLOPS_").lower())
