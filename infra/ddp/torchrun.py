"""A gang on this machine: one torchrun with a rank for each process of each worker.

torchrun starts all ranks again when one fails. It runs below a guard, so that it ends when whoever follows it ends; its
ranks, which lead sessions of their own, are ended with it. Linux and macOS.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from configs.problems import Problem, UserError
from infra.ddp.command import (
    TORCHRUN,
    attempts,
    rank_environment,
    threads_a_rank,
    torchrun_environment,
    torchrun_options,
)
from infra.ddp.failure import Transcript
from infra.ddp.launch import Gang, Launcher, Outcome, Watch
from infra.events import EventReader
from infra.process import Child, guarded, pump
from infra.tracking.machine import cores, gpus

ALL_RANKS = "all-ranks.log"
"""What all ranks and torchrun said, in the order in which it was read."""


def open_launcher(root: Path, home: Path) -> Launcher:
    """Return the launcher of this machine for the code in ``root`` and the state folder ``home``."""
    return LocalLauncher(root, home)


@dataclass(frozen=True)
class _Running:
    """A torchrun at work, and the folder in which it keeps the ranks' output."""

    torchrun: Child
    log_dir: Path

    def restarts(self) -> int:
        return max(0, len(attempts(self.log_dir)) - 1)


class LocalLauncher:
    """Runs gangs on this machine, with their files in ``<home>/gangs/<gang's name>``."""

    def __init__(self, root: Path, home: Path) -> None:
        self.root, self.home = root, home
        self._running: dict[str, _Running] = {}

    def launch(self, gang: Gang) -> None:
        """Start torchrun. What an earlier attempt of the same run left at work is ended first.

        Raises:
            UserError: the machine has fewer GPUs than the least number of workers needs.
        """
        folder = self._folder(gang)
        _end_ranks(gang.name)
        workers = self._workers(gang)
        ranks = workers * gang.processes
        checkpoints = self.home / gang.checkpoints
        shutil.rmtree(folder / "output", ignore_errors=True)
        log_dir = folder / "ranks" / str(len(list((folder / "ranks").glob("*"))))
        for place in (folder / "output", log_dir, checkpoints):
            place.mkdir(parents=True, exist_ok=True)
        (folder / "events.jsonl").unlink(missing_ok=True)
        environment = rank_environment(
            gang,
            threads=threads_a_rank(min(gang.cpu * workers, cores()), ranks),
            data=str(self.root / gang.data.folder) if gang.data else None,
            checkpoints=str(checkpoints),
            output=str(folder / "output"),
            events=str(folder / "events.jsonl"),
        )
        options = torchrun_options(gang, nodes="1", processes=ranks, endpoint="127.0.0.1:0", log_dir=log_dir)
        torchrun = guarded(
            [sys.executable, *TORCHRUN, "--local-addr=127.0.0.1", *options],
            cwd=self.root,
            env=torchrun_environment(self.root, {**os.environ, **environment}),
        )
        self._running[gang.name] = _Running(torchrun, log_dir)

    def follow(self, gang: Gang, watch: Watch) -> Outcome:
        """Follow torchrun to its end."""
        running = self._running[gang.name]
        folder = self._folder(gang)
        events = EventReader(folder / "events.jsonl")
        transcript = Transcript()
        with (folder / ALL_RANKS).open("a", encoding="utf-8") as log:

            def look_for_start() -> None:
                if (restarts := running.restarts()) != transcript.restarts:
                    transcript.restarts = restarts
                    transcript.started()

            def on_line(line: str) -> None:
                if transcript.failed:
                    look_for_start()  # before the first line of the new ranks
                log.write(f"{line}\n")
                watch.line(line)
                if (said := transcript.add(line)) is not None:
                    watch.note(said)

            def on_tick() -> None:
                look_for_start()
                for event in events.new():
                    watch.event(event)
                watch.tick()

            pump(running.torchrun, lambda line: False, on_line, on_tick)
        status = running.torchrun.wait()
        _end_ranks(gang.name)
        failure = transcript.problem(gang.name, status) if status else None
        return Outcome(failure, transcript.restarts)

    def collect(self, gang: Gang, folder: Path) -> None:
        """Copy logs and output. Logs: ``all-ranks.log``, and a file for each rank, attempt and stream."""
        source, logs = self._folder(gang), folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(source / ALL_RANKS, logs / ALL_RANKS)
        started = (attempt for log_dir in (source / "ranks").glob("*") for attempt in attempts(log_dir))
        for number, attempt in enumerate(sorted(started, key=lambda path: path.stat().st_mtime)):
            for file in attempt.glob("*/*.log"):
                if file.stat().st_size:
                    shutil.copyfile(file, logs / f"rank-{file.parent.name}.attempt-{number}.{file.name}")
        if (source / "output").is_dir():
            shutil.copytree(source / "output", folder / "output", dirs_exist_ok=True)

    def leave(self, gang: Gang) -> None:
        """Remove the gang: torchrun ends with the process that started it."""
        self.remove(gang)

    def remove(self, gang: Gang) -> None:
        """End torchrun with its ranks, and remove the gang's files but its checkpoints."""
        running = self._running.pop(gang.name, None)
        if running is not None:
            running.torchrun.close()
        _end_ranks(gang.name)
        shutil.rmtree(self._folder(gang), ignore_errors=True)

    def clear(self, gang: Gang) -> None:
        """Remove the gang's checkpoints."""
        shutil.rmtree(self.home / gang.checkpoints, ignore_errors=True)

    def _folder(self, gang: Gang) -> Path:
        return self.home / "gangs" / gang.name

    def _workers(self, gang: Gang) -> int:
        """As many workers as the machine has room for, from the least to the most."""
        room = int(cores() / gang.cpu)
        if gang.gpus:
            there = len(gpus())
            room = there // gang.gpus
            if room < gang.least:
                raise UserError(
                    Problem(
                        gang.name,
                        f"needs {gang.least * gang.gpus} GPUs, this machine has {there}",
                        "lower workers or worker.gpus, or run it on Kubernetes",
                    )
                )
        return max(gang.least, min(room, gang.most))


def _end_ranks(name: str) -> None:
    """Kill what is left of a gang's ranks: they outlive a torchrun that was killed."""
    left = [process for process in psutil.process_iter() if _is_rank_of(process, name)]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=10)


def _is_rank_of(process: psutil.Process, name: str) -> bool:
    try:
        return process.environ().get("TORCHELASTIC_RUN_ID") == name
    except (psutil.Error, OSError):  # gone, or somebody else's
        return False
