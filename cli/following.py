"""Watches a flow run from the terminal: its log lines, and a bar for the stage at work."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterLevel,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import LogSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from configs.problems import Problem, UserError
from infra.events import EventReader
from tasks.durations import duration
from tasks.progress import ARTIFACT

POLL_S = 0.5
ARTIFACT_POLL_S = 3.0
_STEPS = (
    "Finished in state",
    "Beginning flow run",
    "Running 1 deployment",
    "Executing deployment",
    "Deployment step",
    "All deployment steps",
)
CANCEL_S = 60.0


@dataclass(frozen=True)
class FollowedRun:
    """A flow run that has ended. ``interrupted``: we cancelled it because of Ctrl-C."""

    id: UUID
    name: str
    state: str
    message: str
    interrupted: bool

    @property
    def completed(self) -> bool:
        return self.state == "COMPLETED"

    @property
    def exit_status(self) -> int:
        """0 only for a run that completed."""
        return 130 if self.interrupted else 0 if self.completed else 1


def follow(
    deployment: str, parameters: dict[str, Any], home: Path, console: Console, *, brought_by: str
) -> FollowedRun:
    """Start a run of ``deployment``, show it until it ends, and cancel it on Ctrl-C.

    Args:
        brought_by: the command that brings the server up and makes its deployments.

    Raises:
        UserError: no such deployment, or the server refuses the parameters or does not answer.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with get_client(sync_client=True) as client:
        run = _start(client, deployment, parameters, brought_by)
        events = EventReader(home / "runs" / str(run.id) / "events.jsonl")
        console.print(f"Run [bold]{run.name}[/bold] of {deployment}")
        interrupted = False
        with _progress(console) as progress, _ctrl_c() as pressed, contextlib.suppress(KeyboardInterrupt):
            bars = _Bars(progress)
            lines, artifacts = _log_lines(client, run.id), _artifact_events(client, run.id)
            give_up = float("inf")
            while True:
                if pressed.is_set() and not interrupted:
                    interrupted, give_up = True, time.monotonic() + CANCEL_S
                    progress.console.print("[yellow]Cancelling; the training keeps its last whole epoch.[/yellow]")
                    client.set_flow_run_state(run.id, Cancelling(message="Ctrl-C in the terminal"))
                for line in next(lines):
                    progress.console.print(line, soft_wrap=True)
                for event in (*events.new(), *next(artifacts)):
                    bars.show(event)
                run = client.read_flow_run(run.id)
                if (run.state and run.state.is_final()) or time.monotonic() > give_up:
                    break
                bars.state(run)
                time.sleep(POLL_S)
            time.sleep(POLL_S)  # the last lines are on their way
            for line in next(lines):
                progress.console.print(line, soft_wrap=True)
    state = run.state
    followed = FollowedRun(
        run.id, run.name, state.type.value if state else "", (state.message if state else "") or "", interrupted
    )
    if not followed.completed:
        console.print(f"[red]Run {run.name} ended as {followed.state.lower()}[/red]: {followed.message}")
    return followed


@contextlib.contextmanager
def _ctrl_c() -> Iterator[threading.Event]:
    """Set the event at the first Ctrl-C, wherever the program is: a request or a generator is not broken off by it.

    The second raises KeyboardInterrupt.
    """
    pressed = threading.Event()

    def press(number: int, frame: FrameType | None) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _start(client: SyncPrefectClient, deployment: str, parameters: dict[str, Any], brought_by: str) -> FlowRun:
    try:
        found = client.read_deployment_by_name(deployment)
    except ObjectNotFound:
        raise UserError(Problem(deployment, "is not deployed", f"{brought_by} does that")) from None
    except (OSError, httpx.TransportError) as error:
        raise UserError(Problem("Prefect", f"does not answer: {error}", f"start it: {brought_by}")) from None
    return client.create_flow_run_from_deployment(found.id, parameters=parameters)


def _log_lines(client: SyncPrefectClient, run: UUID) -> Iterator[list[Text]]:
    """Yield at each step the log lines that are new."""
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]), level=LogFilterLevel(ge_=logging.INFO))
    seen = 0
    while True:
        logs = client.read_logs(wanted, offset=seen, limit=200, sort=LogSort.TIMESTAMP_ASC)
        seen += len(logs)
        yield [_line(entry) for entry in logs if entry.level > logging.INFO or _is_ours(entry)]


def _artifact_events(client: SyncPrefectClient, run: UUID) -> Iterator[list[dict[str, Any]]]:
    """Yield at each step what the run's progress artifact says anew, as an event of the stage ``train``.

    A run in a pod writes its events there, where nobody here can read them.
    """
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]), key=ArtifactFilterKey(any_=[ARTIFACT]))
    told, asked = "", 0.0
    while True:
        events: list[dict[str, Any]] = []
        if time.monotonic() - asked >= ARTIFACT_POLL_S:
            asked = time.monotonic()
            for artifact in client.read_artifacts(artifact_filter=wanted)[-1:]:
                said = f"{artifact.description}"
                if said != told:
                    done = float(str(artifact.data))
                    events.append({"stage": "train", "kind": "progress", "done": done, "total": 100, "message": said})
                    told = said
        yield events


def _is_ours(entry: Any) -> bool:
    """Whether a line says something of the job: Prefect's own steps from schedule to engine do not."""
    if entry.name not in ("prefect.flow_runs", "prefect.task_runs"):
        return False
    return not entry.message.startswith(_STEPS)


def _line(entry: Any) -> Text:
    local = entry.timestamp.astimezone()
    style = "red" if entry.level >= logging.ERROR else "yellow" if entry.level >= logging.WARNING else ""
    return Text.assemble((f"{local:%H:%M:%S}  ", "dim"), (entry.message, style))


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


class _Bars:
    """One bar: that of the stage whose event came last."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task("waiting", total=None, said="")
        self._stage = ""

    def state(self, run: FlowRun) -> None:
        if not self._stage:
            name = (run.state.name if run.state else None) or "waiting"
            self._progress.update(self._task, description=name.lower())

    def show(self, event: dict[str, Any]) -> None:
        if event["stage"] != self._stage:
            self._stage = event["stage"]
            self._progress.reset(self._task, description=self._stage, total=None, said="")
        if event["kind"] != "progress":
            return
        left = f", {duration(event['eta_s'])} left" if event.get("eta_s") else ""
        said = event.get("message") or f"{event['done']}/{event['total']} {event.get('unit', '')}"
        self._progress.update(self._task, completed=event["done"], total=event["total"], said=f"{said}{left}")
