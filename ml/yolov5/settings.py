"""How this machine trains fastest: device, precision, threads, memory allocator; and Ultralytics kept quiet."""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from configs.problems import Problem, UserError
from configs.recipe import TrainSection

Precision = Literal["fp32", "bf16", "fp16"]

# mallopt(3) parameters of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


@dataclass(frozen=True)
class Settings:
    """What was decided for one training.

    Attributes:
        device: ``cpu``, ``mps`` or ``cuda:<index>``.
        precision: of the network's forward and backward pass; losses and weights are always fp32.
        threads: of the CPU operators. Another count adds numbers in another order and so gives other weights.
        workers: data loader processes, 0 to load in the training process.
    """

    device: str
    precision: Precision
    threads: int
    workers: int


def decide(train: TrainSection) -> Settings:
    """Fill the recipe's ``auto`` values in for this machine.

    Raises:
        UserError: the recipe names a device or precision that this machine does not have.
    """
    import torch

    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = train.device
    if device == "auto":
        device = "cuda:0" if cuda else "cpu"
    elif device == "cuda":
        device = "cuda:0"
    problems = []
    if device.startswith("cuda") and int(device.removeprefix("cuda:")) >= cuda:
        problems.append(Problem("train.device", f"is {train.device}, PyTorch sees {cuda} GPUs", "use `auto` or `cpu`"))
    if device == "mps" and not torch.backends.mps.is_available():
        problems.append(Problem("train.device", "is mps, which this machine does not have", "use `auto` or `cpu`"))
    if train.precision == "fp16" and not device.startswith("cuda"):
        problems.append(Problem("train.precision", f"is fp16, which needs a CUDA GPU, not {device}", "use `auto`"))
    if problems:
        raise UserError(problems)
    workers = train.workers
    if workers < 0:
        workers = available_cores() if device.startswith("cuda") else 0
    return Settings(device, _precision(train, device), _threads(train), workers)


def _threads(train: TrainSection) -> int:
    """The recipe's count, or one a core; ``MLOPS_THREADS`` names that of a training that is made again."""
    return _number("MLOPS_THREADS") or train.threads or available_cores()


def _number(variable: str) -> int:
    """A number in the environment, 0 where there is none."""
    text = os.environ.get(variable, "")
    return int(text) if text.isdigit() else 0


def _precision(train: TrainSection, device: str) -> Precision:
    if train.precision != "auto":
        return train.precision
    if device.startswith("cuda"):
        import torch

        # bf16 needs no scaled losses: with fp16 the first steps overflow and are left out until the scale is found.
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device == "cpu" and _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively; emulated bf16 is slower than fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def available_cores() -> int:
    """Cores this process may use: its affinity, cut to the quota of its control group (a container's CPU limit).

    ``MLOPS_CORES`` tells that limit in a pod, also where no control group can be seen. Not ``OMP_NUM_THREADS``: the
    import of Ultralytics sets it to 1 where nobody did.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return min(cores, _number("MLOPS_CORES") or cores)


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks instead of returning them to the kernel after every batch.

    Each step allocates the same activations again; without this each takes its page faults again, too.
    Elsewhere than on glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    mallopt(_M_TOP_PAD, 64 << 20)
