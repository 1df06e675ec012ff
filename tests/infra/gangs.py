"""Gangs on this machine, as the tests of the launcher run them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from infra.ddp.launch import Gang, Outcome, Watch
from infra.ddp.torchrun import LocalLauncher

ROOT = Path(__file__).parents[2]


def gang(name: str, *program: str, **changes: Any) -> Gang:
    """A gang of two workers on this checkout's code."""
    values: dict[str, Any] = {
        "name": name,
        "flow_run_id": "0123",
        "program": program,
        "least": 2,
        "most": 2,
        "processes": 1,
        "cpu": 1.0,
        "memory": 1 << 30,
        "gpus": 0,
        "backend": "gloo",
        "checkpoints": PurePosixPath("checkpoints"),
        "max_restarts": 0,
        "rendezvous_s": 60,
        "below_least_s": 60,
    }
    return Gang(**values | changes)


@dataclasses.dataclass
class Followed:
    """A gang that has ended, with all that it told."""

    outcome: Outcome
    events: list[Mapping[str, Any]]
    notes: list[str]
    lines: list[str]


def run(home: Path, training: Gang, on_event: Any = lambda event: None) -> Followed:
    """Run a gang to its end in the state folder ``home``, and collect it into ``home/kept``."""
    launcher = LocalLauncher(ROOT, home)
    events: list[Mapping[str, Any]] = []
    notes: list[str] = []
    lines: list[str] = []

    def take(event: Mapping[str, Any]) -> None:
        events.append(event)
        on_event(event)

    try:
        launcher.launch(training)
        outcome = launcher.follow(training, Watch(take, notes.append, lines.append))
        launcher.collect(training, home / "kept")
    finally:
        launcher.remove(training)
    return Followed(outcome, events, notes, lines)


def ranks_of(name: str) -> list[int]:
    """Process ids of a gang's ranks, in the order of the ranks."""
    import psutil

    found = {}
    for process in psutil.process_iter():
        try:
            variables = process.environ()
        except (psutil.Error, OSError):
            continue
        if variables.get("TORCHELASTIC_RUN_ID") == name:
            found[int(variables["RANK"])] = process.pid
    return [found[rank] for rank in sorted(found)]
