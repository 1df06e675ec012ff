"""Seeding and optimizers without what PyTorch imports for them: its compiler, half the time to the first batch."""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType

import numpy as np
import torch
from ultralytics.engine import trainer as engine


def seed_everything(seed: int, deterministic: bool = True) -> None:
    """Seed every random generator and ask for deterministic kernels on the CPU."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if deterministic:
        torch._C._set_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def seeded_by(seed: Callable[..., None]) -> Iterator[None]:
    """Let Ultralytics seed with ``seed``.

    Its own function calls ``torch.use_deterministic_algorithms``, which imports PyTorch's whole compiler to set one of
    its flags: four seconds, as much as everything else before the first batch together.
    """
    original = engine.init_seeds
    engine.init_seeds = seed
    try:
        yield
    finally:
        engine.init_seeds = original


def leave_compiler_out() -> None:
    """Keep the optimizers from importing PyTorch's compiler, another four seconds, only to be left alone by it.

    They import it to make an uncompiled twin of each decorated function unless one is noted on the function; nothing is
    compiled here, so the function itself is noted.
    """
    modules = (sys.modules[optimizer.__module__] for optimizer in (torch.optim.Adam, torch.optim.SGD))
    for owner in (torch.optim.Optimizer, *modules):
        for member in vars(owner).values():
            plain = getattr(member, "__wrapped__", None)
            if plain is not None and not hasattr(plain, "__dynamo_disable"):
                plain.__dict__["__dynamo_disable"] = plain


def step_plainly(optimizer: torch.optim.Optimizer) -> None:
    """Take the optimizer's own step out of its wrappers, which import the compiler too."""
    step = torch.no_grad()(inspect.unwrap(type(optimizer).step))
    optimizer.step = MethodType(step, optimizer)  # type: ignore[method-assign]
