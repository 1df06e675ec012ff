"""Watches a flow run from the terminal: its log lines, and a bar for the stage at work.

Asks Prefect's REST API itself: importing its client takes longer than everything else that a command does before a run
starts.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID, uuid4

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from configs.problems import Problem, UserError
from infra.events import EventReader
from infra.stack.rest import RefusedError, UnreachableError, prefect_client
from tasks.durations import duration
from tasks.summary import FILE, PROGRESS

POLL_S = 0.5
SOON_S = 0.1  # between two looks at a run that has come to its summary
ARTIFACT_POLL_S = 3.0
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_FINISHED = "Finished in state"
_STEPS = (
    _FINISHED,
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
    run = _start(deployment, parameters, brought_by)
    name, path = run["name"], f"/flow_runs/{run['id']}"
    folder = home / "runs" / run["id"]
    events = EventReader(folder / "events.jsonl")
    console.print(f"Run [bold]{name}[/bold] of {deployment}")
    interrupted = False
    with _progress(console) as progress, _told(), _ctrl_c() as pressed, contextlib.suppress(KeyboardInterrupt):
        bars = _Bars(progress)
        lines, artifacts = _log_lines(run["id"]), _artifact_events(run["id"])
        give_up = float("inf")
        while True:
            if pressed.is_set() and not interrupted:
                interrupted, give_up = True, time.monotonic() + CANCEL_S
                progress.console.print("[yellow]Cancelling; the training keeps its last whole epoch.[/yellow]")
                state = {"type": "CANCELLING", "name": "Cancelling", "message": "Ctrl-C in the terminal"}
                prefect_client(f"{path}/set_state", {"state": state})
            for line in next(lines).shown:
                progress.console.print(line, soft_wrap=True)
            for event in (*events.new(), *next(artifacts)):
                bars.show(event)
            run = prefect_client(path)
            if _state(run, "type") in FINAL or time.monotonic() > give_up:
                break
            bars.state(_state(run, "name"))
            time.sleep(SOON_S if (folder / FILE).exists() else POLL_S)
        _last_lines(lines, progress.console)
    followed = FollowedRun(UUID(run["id"]), name, _state(run, "type"), _state(run, "message"), interrupted)
    if not followed.completed:
        console.print(f"[red]Run {name} ended as {followed.state.lower()}[/red]: {followed.message}")
    return followed


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Say in a sentence that the server has gone."""
    try:
        yield
    except UnreachableError as error:
        remedy = "the run goes on by itself: mlops status"
        raise UserError(Problem("Prefect", f"does not answer any more: {error}", remedy)) from None


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


def _start(deployment: str, parameters: dict[str, Any], brought_by: str) -> dict[str, Any]:
    try:
        found = prefect_client(f"/deployments/name/{deployment}")
        # Prefect makes one run of a key, however often it is asked.
        wanted = {"parameters": parameters, "idempotency_key": str(uuid4())}
        run: dict[str, Any] = prefect_client(f"/deployments/{found['id']}/create_flow_run", wanted)
    except RefusedError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            raise UserError(Problem(deployment, "is not deployed", f"{brought_by} does that")) from None
        raise UserError(Problem(deployment, f"is refused: {error.said or error}")) from None
    except UnreachableError as error:
        raise UserError(Problem("Prefect", f"does not answer: {error}", f"start it: {brought_by}")) from None
    return run


def _state(run: dict[str, Any], key: str) -> str:
    return str((run["state"] or {}).get(key) or "")


@dataclass(frozen=True)
class _Lines:
    """Log lines that are new. ``finished``: the run's own last one is among them."""

    shown: list[Text]
    finished: bool


def _log_lines(run: str) -> Iterator[_Lines]:
    """Yield at each step the log lines that are new."""
    wanted = {"flow_run_id": {"any_": [run]}, "level": {"ge_": logging.INFO}}
    seen = 0
    while True:
        asked = {"logs": wanted, "offset": seen, "limit": 200, "sort": "TIMESTAMP_ASC"}
        logs = prefect_client("/logs/filter", asked)
        seen += len(logs)
        shown = [_line(entry) for entry in logs if entry["level"] > logging.INFO or _is_ours(entry)]
        yield _Lines(shown, any(_ends_run(entry) for entry in logs))


def _last_lines(lines: Iterator[_Lines], console: Console) -> None:
    """Print the lines that are still on their way, for as long as ``POLL_S``."""
    end = time.monotonic() + POLL_S
    while True:
        new = next(lines)
        for line in new.shown:
            console.print(line, soft_wrap=True)
        if new.finished or time.monotonic() > end:
            return
        time.sleep(SOON_S)


def _artifact_events(run: str) -> Iterator[list[dict[str, Any]]]:
    """Yield at each step what the run's progress artifact says anew, as an event of the stage ``train``.

    A run in a pod writes its events there, where nobody here can read them.
    """
    wanted = {"flow_run_id": {"any_": [run]}, "key": {"any_": [PROGRESS]}}
    told, asked = "", 0.0
    while True:
        events: list[dict[str, Any]] = []
        if time.monotonic() - asked >= ARTIFACT_POLL_S:
            asked = time.monotonic()
            for artifact in prefect_client("/artifacts/filter", {"artifacts": wanted})[-1:]:
                said = f"{artifact['description']}"
                if said != told:
                    done = float(str(artifact["data"]))
                    events.append({"stage": "train", "kind": "progress", "done": done, "total": 100, "message": said})
                    told = said
        yield events


def _ends_run(entry: dict[str, Any]) -> bool:
    return entry["name"] == "prefect.flow_runs" and str(entry["message"]).startswith(_FINISHED)


def _is_ours(entry: dict[str, Any]) -> bool:
    """Whether a line says something of the job: Prefect's own steps from schedule to engine do not."""
    if entry["name"] not in ("prefect.flow_runs", "prefect.task_runs"):
        return False
    return not entry["message"].startswith(_STEPS)


def _line(entry: dict[str, Any]) -> Text:
    local = datetime.datetime.fromisoformat(entry["timestamp"]).astimezone()
    level = entry["level"]
    style = "red" if level >= logging.ERROR else "yellow" if level >= logging.WARNING else ""
    return Text.assemble((f"{local:%H:%M:%S}  ", "dim"), (entry["message"], style))


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

    def state(self, name: str) -> None:
        if not self._stage:
            self._progress.update(self._task, description=name.lower() or "waiting")

    def show(self, event: dict[str, Any]) -> None:
        if event["stage"] != self._stage:
            self._stage = event["stage"]
            self._progress.reset(self._task, description=self._stage, total=None, said="")
        if event["kind"] != "progress":
            return
        left = f", {duration(event['eta_s'])} left" if event.get("eta_s") else ""
        said = event.get("message") or f"{event['done']}/{event['total']} {event.get('unit', '')}"
        self._progress.update(self._task, completed=event["done"], total=event["total"], said=f"{said}{left}")
