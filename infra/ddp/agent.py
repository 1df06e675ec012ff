"""The first process of a worker's pod: brings torchrun together with that of the other pods, and ends as the ranks did.

``python -m infra.ddp.agent OPTIONS -- TORCHRUN'S ARGUMENTS``. The pod with index 0 hosts the rendezvous' store, and as
torch numbers agents by their addresses, rank 0 is there, too. What can go wrong between pods is dealt with here:

- The host's name is known only when its pod has an address: the other agents wait for it, then for its port, and say
  all the while which peers have no address yet.
- A pod that is lost is replaced by its Job. Ranks that lost a peer fail, torchrun counts that as a restart and waits
  for the new one. When the host is lost, so is the store: torchrun then ends everywhere, and is started again here, in
  place, with the new host.
- torchrun ends with 1 whatever a rank ended with. We end with the exit code of the rank that failed first (128 + signal
  where one ended it), and with :data:`PASSING` when torchrun did not find its peers; never with :data:`UNSEEN`.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from configs.problems import UserError
from infra.ddp.command import TORCHRUN, attempts, torchrun_environment
from infra.ddp.failure import Transcript
from infra.ddp.peers import Peers
from infra.ddp.worker_log import READY, STARTED, WorkerLog
from infra.events import LineReader
from infra.process import guarded, pump

PASSING = 75
"""Exit code where no rank failed by itself: the peers were not found or the store was lost (``EX_TEMPFAIL``)."""
UNSEEN = 255
"""Exit code of a container whose end nobody saw, as containerd has it after a power cut of its node."""
SAY_S = 10.0
"""Seconds between two notes that say who is missing."""

_RENDEZVOUS = re.compile(r"\b(Rendezvous(Connection|Timeout|Closed|State)Error|Dist(Network|Store)Error)\b.*")


class TerminatedError(Exception):
    """We were told to end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one worker to its end and return its exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    log = WorkerLog(options.log)
    try:
        code = Agent(options, log).run()
    except TerminatedError:
        log.note("told to end: the ranks were ended")
        return 128 + signal.SIGTERM
    # A rank may end with it as well, as by `sys.exit(-1)`: its own words tell that.
    return 1 if code == UNSEEN else code


class Agent:
    """One worker's torchrun, started again where that helps."""

    def __init__(self, options: argparse.Namespace, log: WorkerLog) -> None:
        self._options, self._log = options, log
        self._index: int = options.index
        self._peers = Peers(options.peers, options.most, options.port)
        self._log_dir = Path(options.log_dir)
        self._said_at = time.monotonic()
        events = _make_folders()
        # From the first one on: those that an earlier pod has told are told again.
        self._events = LineReader(events) if events is not None and self._index == 0 else None

    def run(self) -> int:
        """Run torchrun to its end, again where only the rendezvous was lost; return the worker's exit code."""
        if self._options.data and (trouble := self._fetch(self._options.data)) is not None:
            return trouble
        self._log.note(READY)
        for attempt in range(self._options.restarts + 1):
            if attempt:
                self._log.note(f"starting torchrun again, {attempt} of {self._options.restarts}")
            if self._index and not self._wait_for_host():
                return PASSING
            code, lost = self._torchrun()
            if lost is None:
                return code
            self._log.note(f"the rendezvous was lost: {lost}")
        return PASSING

    def _fetch(self, file: str) -> int | None:
        """Bring the dataset here; returns the exit code where that failed."""
        from infra.ddp import dataset
        from infra.repository.dvc import ShareError

        try:
            dataset.fetch(Path.cwd(), file, self._log.note)
        except UserError as error:
            self._log.line(f"error:\n{error}")
            return PASSING if isinstance(error, ShareError) else 1
        return None

    def _wait_for_host(self) -> bool:
        """Wait for the rendezvous' host; returns False when it was not there in time."""
        give_up = time.monotonic() + self._options.wait_s
        told = ""
        while (trouble := self._peers.host_trouble()) is not None:
            if time.monotonic() > give_up:
                self._log.note(f"gave up after {self._options.wait_s:.0f} s: {trouble}")
                return False
            if trouble != told:
                self._log.note(f"waiting: {trouble}")
                told = trouble
            self._say_missing()
            time.sleep(0.5)
        return True

    def _torchrun(self) -> tuple[int, str | None]:
        """Run torchrun once. Returns the worker's exit code, and why the rendezvous failed where that ended it."""
        transcript = Transcript()
        lost: str | None = None
        starts, waiting = len(attempts(self._log_dir)), True

        def look_for_start() -> None:
            nonlocal starts, waiting
            if (now := len(attempts(self._log_dir))) != starts:
                starts, waiting = now, False
                transcript.started()
                self._log.note(f"{STARTED}, attempt {starts}")

        def on_line(line: str) -> None:
            nonlocal lost, waiting
            if transcript.failed:
                look_for_start()  # before the first line of the new ranks
            self._log.line(line)
            waiting = transcript.add(line) is not None or waiting
            if match := _RENDEZVOUS.search(line):
                lost = match[0]

        def on_tick() -> None:
            for text in self._events.new() if self._events else ():
                self._log.event(text)
            look_for_start()
            if waiting:
                self._say_missing()

        child = guarded(self._command(), cwd=Path.cwd(), env=torchrun_environment(Path.cwd(), os.environ))
        try:
            pump(child, lambda line: False, on_line, on_tick)
            status = child.wait()
        finally:
            child.close()
        if status == 0:
            return 0, None
        failures = transcript.failures()
        if failures:
            code = failures[0].exitcode
            return (code if code > 0 else 128 - code), None
        return status, lost

    def _command(self) -> list[str]:
        host = f",is_host={int(self._index == 0)}"
        given = [item + host if item.startswith("--rdzv-conf=") else item for item in self._options.torchrun]
        return [sys.executable, *TORCHRUN, f"--local-addr={self._peers.name(self._index)}", *given]

    def _say_missing(self) -> None:
        if time.monotonic() - self._said_at < SAY_S:
            return
        missing = self._peers.missing()
        self._said_at = time.monotonic()
        if missing:
            self._log.note(
                f"waiting: no address yet for worker{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}"
            )


def _make_folders() -> Path | None:
    """Make the folders that ranks write to; return the file of events."""
    for name in ("MLOPS_CHECKPOINTS", "MLOPS_OUTPUT"):
        if os.environ.get(name):
            Path(os.environ[name]).mkdir(parents=True, exist_ok=True)
    if not os.environ.get("MLOPS_EVENTS"):
        return None
    events = Path(os.environ["MLOPS_EVENTS"])
    events.parent.mkdir(parents=True, exist_ok=True)
    return events


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise TerminatedError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, help="names of all workers, with {} in place of the index")
    parser.add_argument("--index", type=int, required=True, help="of this worker")
    parser.add_argument("--most", type=int, required=True, help="workers")
    parser.add_argument("--port", type=int, required=True, help="of the rendezvous")
    parser.add_argument("--restarts", type=int, required=True, help="of torchrun after a lost rendezvous")
    parser.add_argument("--wait-s", type=float, required=True, help="for the rendezvous' host")
    parser.add_argument("--log-dir", required=True, help="torchrun's")
    parser.add_argument("--data", help="the .dvc file of the dataset")
    parser.add_argument("--log", type=Path, help="file for a copy of this log")
    parser.add_argument("torchrun", nargs="+", help="torchrun's arguments")
    return parser


if __name__ == "__main__":
    sys.exit(main())
