"""The training loop of :mod:`ml.yolov5.trainer` for several ranks.

Ultralytics splits its own training over the GPUs of one machine only. Here each rank loads its part of every batch,
the gradients are summed before each step of the optimizer (Ultralytics' losses are sums over the images, so this is
what one process would have), and what depends on a rank's own images (losses, batch norm statistics) is averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from ml.ddp.world import World
from ml.yolov5.startup import seed_everything
from ml.yolov5.trainer import Row, Yolov5Training


class DistributedTraining(Yolov5Training):
    """One detector, trained by all ranks together; takes what :class:`~ml.yolov5.trainer.Yolov5Training` takes."""

    validator: Callable[[Any], Row]

    def __init__(self, world: World, *args: Any) -> None:
        self.world = world
        super().__init__(*args)

    def prepare(self) -> None:
        """Build or restore everything, and begin with rank 0's weights."""
        super().prepare()
        for model in (self.model, self.ema.ema):
            # By way of the CPU: what is shared arrives on the GPU with the number it left from.
            weights = None
            if self.world.rank == 0:
                weights = {name: value.cpu() for name, value in model.state_dict().items()}
            model.load_state_dict(self.world.share(weights))
        judge = self.validator
        # Rank 0 judges, all ranks know the result.
        self.validator = lambda trainer: self.world.share(judge(trainer) if self.world.rank == 0 else None)

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Loader of one split; of each train batch this rank's part."""
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        if mode == "train" and self.world.size > 1:
            # A loader refuses a new sampler once it is made; Ultralytics' own sets it in the same way.
            endless = loader.batch_sampler
            object.__setattr__(loader, "batch_sampler", type(endless)(Part(endless.sampler, self.world)))
        return loader

    def optimizer_step(self) -> None:
        """Sum the gradients of all ranks, then step."""
        if self.world.size > 1:
            for value in (parameter for parameter in self.model.parameters() if parameter.requires_grad):
                if value.grad is None:  # this rank's images did not reach it; others' may have
                    value.grad = torch.zeros_like(value)
            together([value.grad for value in self.model.parameters() if value.requires_grad])
        super().optimizer_step()

    def _begin_epoch(self, epoch: int) -> None:
        super()._begin_epoch(epoch)
        # The order of the images is the same on all ranks; how they are augmented is each rank's own.
        seed = np.random.SeedSequence([self.args.seed, epoch, self.world.rank]).generate_state(1)[0]
        seed_everything(int(seed), self.args.deterministic)

    def _train_epoch(self, epoch: int) -> Row:
        row = super()._train_epoch(epoch)
        if self.world.size > 1:
            means = torch.tensor(list(row.values()), dtype=torch.float64, device=self.world.device)
            statistics = [
                value
                for model in (self.model, self.ema.ema)
                for value in model.buffers()
                if value.is_floating_point() and value.numel()
            ]
            together([means, *statistics], 1 / self.world.size)
            row = dict(zip(row, means.tolist(), strict=True))
        return row


class Part:
    """This rank's part of the batches of a sampler that gives the same batches on all ranks.

    A batch with fewer images than ranks is left out: each rank must have one.
    """

    def __init__(self, batches: Any, world: World) -> None:
        self.batches, self.world = batches, world

    def __len__(self) -> int:
        images, size = len(self.batches.sampler), self.batches.batch_size
        return int(images // size + (images % size >= self.world.size))

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            if len(batch) >= self.world.size:
                yield batch[self.world.rank :: self.world.size]


def together(values: list[torch.Tensor], factor: float = 1.0) -> None:
    """Replace tensors by their sum over all ranks, times ``factor``: one message for each type of number."""
    for dtype in sorted({value.dtype for value in values}, key=str):
        same = [value for value in values if value.dtype == dtype]
        flat = _flatten_dense_tensors(same)  # type: ignore[no-untyped-call]
        dist.all_reduce(flat)
        flat *= factor
        for value, summed in zip(same, _unflatten_dense_tensors(flat, same), strict=True):  # type: ignore[no-untyped-call]
            value.copy_(summed)
