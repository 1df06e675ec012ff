"""A training whose step is long against the exchange of its gradients: the script that ``ddp_efficiency`` runs.

Each rank takes as many samples a step as one alone would. Rank 0 prints the samples a second of all ranks together.
"""

from __future__ import annotations

import json
import os
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

WIDTH, BATCH, STEPS, WARM = 512, 16384, 5, 1


def main() -> None:
    """Train and print one line of JSON."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    layers = [layer for _ in range(6) for layer in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU())]
    model = DistributedDataParallel(torch.nn.Sequential(*layers))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    inputs = torch.randn(BATCH, WIDTH)
    began = 0.0
    for step in range(WARM + STEPS):
        if step == WARM:
            dist.barrier()
            began = time.monotonic()
        optimizer.zero_grad()
        (model(inputs) - inputs).square().mean().backward()
        optimizer.step()
    dist.barrier()
    seconds = time.monotonic() - began
    if dist.get_rank() == 0:
        rate = BATCH * STEPS * dist.get_world_size() / seconds
        said = {"rate": rate, "step_ms": seconds / STEPS * 1000, "threads": os.environ.get("OMP_NUM_THREADS")}
        print(f"RESULT {json.dumps(said)}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
