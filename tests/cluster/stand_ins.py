"""A worker of a training of which the program alone is another: Job, pod, volumes and rights are the project's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from infra.ddp.launch import Gang
from infra.kubernetes.gang.manifests import job
from infra.kubernetes.gang.pod import Space


def bare_space(image: str, node: str) -> Space:
    """Return what a cluster without platform and share gives: a node's processors."""
    folder = PurePosixPath("/var/lib/mlops")
    where = {"kubernetes.io/hostname": node}
    return Space("default", image, folder / "cache", 16 << 20, 600, folder, (), (), node_selector=where)


def stand_in(name: str, run: str, space: Space, command: Sequence[str], *, cpu: float = 0.1) -> dict[str, Any]:
    """Return the Job of a gang of one. ``run``: id of the flow run; ``command``: in the place of torchrun's agent."""
    gang = Gang(
        name=name,
        flow_run_id=run,
        program=("none",),
        least=1,
        most=1,
        processes=1,
        cpu=cpu,
        memory=256 << 20,
        gpus=0,
        backend="gloo",
        checkpoints=PurePosixPath("checkpoints"),
        max_restarts=3,
        rendezvous_s=60,
        below_least_s=60,
    )
    made = job(gang, space)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    container["command"] = list(command)
    del container["args"]
    return made
