"""Finds out from what torchrun and the ranks printed which rank failed first, how, and what it said last. Pure.

torchrun names as root cause the failure that it saw first. Ranks that lost a peer in a collective fail in the same
moment, so that this is often a victim: a rank that was killed, or whose last words are its own, comes before those.
"""

from __future__ import annotations

import re
import signal
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from configs.problems import Problem

SHOWN = 25
"""Last lines of a rank that are shown."""

_RANK_LINE = re.compile(r"\[rank (\d+)\] (.*)", re.DOTALL)
_FAILED = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+) ")
_FIELD = re.compile(r"  (rank|exitcode|host)\s*: (\S+)")
_LOST_PEER = re.compile(
    r"Connection (closed|reset) by peer|Connection refused|Broken pipe|gloo.*(timed out|[Cc]onnect)|"
    r"DistBackendError|DistNetworkError|NCCL (error|communicator)|remote process has terminated"
)


@dataclass(frozen=True)
class RankFailure:
    """How one rank ended. ``exitcode``: its own, or the negative number of the signal that ended it."""

    rank: int
    exitcode: int
    host: str


class Transcript:
    """What a gang printed, as far as its error needs it: torchrun's own last lines and those of each rank.

    Attributes:
        restarts: how often all ranks were started again, for the error.
        failed: whether torchrun said of a rank of the current attempt that it failed.
    """

    def __init__(self) -> None:
        self.restarts = 0
        self.failed = False
        self._agent: deque[str] = deque(maxlen=400)
        self._ranks: dict[int, deque[str]] = defaultdict(lambda: deque(maxlen=SHOWN))

    def add(self, line: str) -> str | None:
        """Take one line; return what it says of ranks that failed, for a log, or None."""
        if match := _RANK_LINE.fullmatch(line):
            self._ranks[int(match[1])].append(match[2])
            return None
        self._agent.append(line)
        if match := _FAILED.search(line):
            self.failed = True
            return f"a rank failed: local rank {match[2]} {ended(int(match[1]))}"
        return None

    def started(self) -> None:
        """Take note that the ranks were started: what they said in an earlier attempt explains nothing any more.

        The lines cannot tell: torchrun hands on what a rank said last often after the line that says that it failed.
        """
        self._ranks.clear()
        self.failed = False

    def last_words(self, rank: int) -> list[str]:
        """Return what a rank said last."""
        return list(self._ranks.get(rank, ()))

    def failures(self) -> list[RankFailure]:
        """Return the failures of torchrun's last report, the most likely cause first; none: it made no report."""
        found = parse_report(self._agent)
        return sorted(found, key=lambda failure: (failure.exitcode == -signal.SIGTERM, self.is_victim(failure)))

    def problem(self, gang: str, status: int) -> Problem:
        """Return the error of a gang whose torchrun ended with ``status``."""
        failures = self.failures()
        if not failures:
            said = "\n".join(_without_frames(self._agent)[-SHOWN:]) or f"torchrun {ended(_as_signal(status))}"
            return Problem(gang, f"torchrun {ended(_as_signal(status))}:\n{said}" if self._agent else said)
        first = failures[0]
        again = f" after {self.restarts} restart{'s' * (self.restarts != 1)}" if self.restarts else ""
        said = "\n".join(self.last_words(first.rank)) or "(it said nothing)"
        return Problem(
            f"{gang}, rank {first.rank}", f"{ended(first.exitcode)}{again}; its last lines:\n{said}", _remedy(first)
        )

    def is_victim(self, failure: RankFailure) -> bool:
        """Whether a rank seems to have failed only because it lost another."""
        return failure.exitcode > 0 and any(_LOST_PEER.search(line) for line in self.last_words(failure.rank))


def parse_report(lines: Iterable[str]) -> list[RankFailure]:
    """Read the last failure report that torchrun printed: the root cause first, then the others."""
    blocks: list[dict[str, str]] = []
    root = 0
    for line in lines:
        if re.fullmatch(r"\S.* FAILED", line):
            blocks, root = [], 0
        elif line.startswith("Root Cause"):
            root = len(blocks)
        elif re.fullmatch(r"\[\d+\]:", line):
            blocks.append({})
        elif blocks and (match := _FIELD.match(line)):
            blocks[-1][match[1]] = match[2]
    whole = [block for block in (*blocks[root:], *blocks[:root]) if {"rank", "exitcode"} <= block.keys()]
    return [RankFailure(int(block["rank"]), int(block["exitcode"]), block.get("host", "")) for block in whole]


def ended(exitcode: int) -> str:
    """Return in words how a process ended; a negative number is that of a signal."""
    if exitcode >= 0:
        return f"ended with exit code {exitcode}"
    try:
        return f"was ended by {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"was ended by signal {-exitcode}"


def _as_signal(status: int) -> int:
    """A shell's exit status, with signals as negative numbers."""
    return 128 - status if status > 128 else status


def _remedy(failure: RankFailure) -> str:
    if failure.exitcode == -signal.SIGKILL:
        return "the kernel kills so when memory runs out: raise worker.memory, or use a smaller batch"
    if failure.exitcode == -signal.SIGBUS:
        return "shared memory is full: data loader processes need a larger /dev/shm"
    return ""


def _without_frames(lines: Iterable[str]) -> list[str]:
    """Leave out tracebacks' frames and torchrun's decorations."""
    return [line for line in lines if line.strip() and not re.match(r"\s+(File \"|\S)|[=*-]{10}|Traceback", line)]
