"""How torchrun is started for a gang, what its ranks find in their environment, and how often they were started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePath

from infra.ddp.launch import Gang

TORCHRUN = ("-m", "torch.distributed.run")
"""What a Python interpreter is given to be torchrun."""
RANK_PREFIX = "[rank ${rank}] "
"""What torchrun writes before each line of a rank; :mod:`infra.ddp.failure` reads it."""
SHUTDOWN_S = 15
"""Seconds that ranks have between SIGTERM and SIGKILL; less than :data:`infra.guard.GRACE_S` and a pod's grace."""


def torchrun_options(
    gang: Gang, *, nodes: str, processes: int, endpoint: str, log_dir: PurePath, more: Mapping[str, str] | None = None
) -> list[str]:
    """Return torchrun's arguments for one agent of the gang: options, then the program.

    Args:
        nodes: agents, as ``1`` or ``1:4``.
        processes: ranks that this agent starts.
        endpoint: of the rendezvous, as ``host:port``.
        log_dir: where each rank's output is kept.
        more: settings of the rendezvous besides the time to join.
    """
    settings = {"join_timeout": str(gang.rendezvous_s), **(more or {})}
    options = {
        "nnodes": nodes,
        "nproc-per-node": str(processes),
        "rdzv-backend": "c10d",
        "rdzv-endpoint": endpoint,
        "rdzv-id": gang.name,
        "rdzv-conf": ",".join(f"{key}={value}" for key, value in settings.items()),
        "max-restarts": str(gang.max_restarts),
        # Left at its default, an agent was seen not to start its ranks again.
        "monitor-interval": "0.5",
        "shutdown-timeout": str(SHUTDOWN_S),
        "log-dir": str(log_dir),
        "redirects": "3",
        "tee": "3",
    }
    return [*(f"--{name}={value}" for name, value in options.items()), *gang.program]


def rank_environment(
    gang: Gang, *, threads: int, data: str | None, checkpoints: str, output: str, events: str
) -> dict[str, str]:
    """Return what the launcher adds to the environment of every rank; the arguments are folders and a file."""
    return {
        **gang.environment,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        "MLOPS_BACKEND": gang.backend,
        "MLOPS_CHECKPOINTS": checkpoints,
        "MLOPS_OUTPUT": output,
        "MLOPS_EVENTS": events,
        **({"MLOPS_DATA": data} if data is not None else {}),
    }


def threads_a_rank(cores: float, ranks: int) -> int:
    """Return the CPU threads of each of ``ranks`` processes that share ``cores``."""
    return max(1, int(cores / ranks))


def torchrun_environment(root: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a torchrun: ``inherited``, and what every one of ours needs.

    The code's root comes first where modules are looked for: a script finds the project's as ``python -m`` would.

    Torch 2.15 otherwise keeps one store for the ranks of all rounds (``torch/distributed/rendezvous.py`` takes it for a
    new one each time): ranks that start again find the addresses of those that are gone, fail with ``Connection
    refused`` or hang. As its address is published in the first round alone, a pod that replaces another waits for it
    for a minute, and all end with ``DistStoreError``.
    """
    path = os.pathsep.join(filter(None, (str(root), inherited.get("PYTHONPATH"))))
    return {
        **inherited,
        "PYTHONPATH": path,
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        # The option of the same name is newer: before torch 2.14 torchrun takes it for the script.
        "TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE": RANK_PREFIX,
    }


def attempts(log_dir: Path) -> list[Path]:
    """Return the folders that torchrun makes in its ``log_dir``: one each time that it starts the ranks."""
    return list(log_dir.glob("*/attempt_*"))
