"""Locks of machines themselves: whoever changes one from another checkout or another desk sees who has it.

A command there holds ``flock`` below ``/run`` and says a word every second, for as long as our connection lives. When
we end, however we end, so does it; when our own machine or the network is gone, the words are not taken any more, and
TCP gives up after some minutes; when the machine is switched off, the lock goes with it. Nothing is left behind.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from configs.problems import Problem, UserError
from infra.machines.commands import Command
from infra.machines.ssh import Machine
from infra.machines.trouble import MachineError

LOCK = "/run/mlops-site.lock"
_LIMIT_S = 86400
_ANSWER_S = 60
_OURS, _THEIRS = "ours", "theirs "
# Whoever has just ended may still be on the way out.
_SCRIPT = f"""\
exec 9<>{LOCK}
flock --wait 2 9 || {{ printf '{_THEIRS}%s\\n' "$(head -c 300 {LOCK})"; exit 0; }}
printf '%s\\n' "$1" >{LOCK}
echo {_OURS}
while sleep 1 9<&-; do echo; done
"""


class _Released(Exception):  # noqa: N818 - no error
    """Ends the command that holds a machine."""


class Holds:
    """The machines that this run has for itself, until the block ends.

    The block is to end after the machines' connections are closed: that is what ends the commands at once.

    Args:
        checkout: named to those who are refused.
    """

    def __init__(self, checkout: Path) -> None:
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime())
        self._who = f"{getpass.getuser()}@{socket.gethostname()}, process {os.getpid()}, {checkout}, since {started}"
        self._released = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._released.set()
        for thread in self._threads:
            thread.join(5)

    def take(self, machines: Iterable[Machine]) -> None:
        """Hold these machines as well. One that cannot be reached is left out: what needs it will say so.

        Raises:
            UserError: somebody else holds one or more, and who.
        """
        first, *others = sorted(machines, key=lambda machine: machine.login.name)
        with ThreadPoolExecutor(len(others) + 1) as pool:
            # Meanwhile the connections of the others are opened, which takes longer than to hold them.
            answers = pool.map(_is_reached, others)
            # Of two runs that begin together, the one that has the first of them gets them all.
            refused = [self._take(first)]
            if refused == [None]:
                there = [machine for machine, reached in zip(others, answers, strict=True) if reached]
                refused += pool.map(self._take, there)
        problems = [problem for problem in refused if problem is not None]
        if problems:
            raise UserError(problems)

    def _take(self, machine: Machine) -> Problem | None:
        answered = threading.Event()
        said: list[str] = []

        def hear(line: str) -> None:
            if self._released.is_set():
                raise _Released
            if line and not said:
                said.append(line)
                answered.set()

        def keep() -> None:
            try:
                machine.run(Command(("sh", "-c", _SCRIPT, "sh", self._who), timeout_s=_LIMIT_S), on_line=hear)
            except (_Released, MachineError):
                pass
            finally:
                answered.set()

        thread = threading.Thread(target=keep, name=f"hold {machine.login.name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        answered.wait(_ANSWER_S)
        if not said or said[0] == _OURS:
            return None
        what = f"is changed by somebody else now: {said[0].removeprefix(_THEIRS) or '?'}"
        return Problem(machine.login.name, what, "wait until that has ended; a lock is never left behind")


def _is_reached(machine: Machine) -> bool:
    with contextlib.suppress(MachineError):
        machine.run(Command(("true",)))
        return True
    return False
