"""A machine that is reached by ssh: commands and files of root, over one connection that stays open.

OpenSSH's client does it, with nobody's configuration but ours: keys only, and the host keys that were pinned for the
machine's name, so that another address does not lose them and another machine at its address is not taken for it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from configs.problems import Problem
from infra.machines.batch import WRITE_S, Batch, Quick
from infra.machines.commands import Command, File, Upload
from infra.machines.exchange import Outcome, exchange
from infra.machines.host_keys import host_key_error
from infra.machines.opening import Opening
from infra.machines.options import CONNECT_S, ssh_words
from infra.machines.sockets import SocketFolder
from infra.machines.transfer import TransferError, receive, send
from infra.machines.trouble import (
    ConnectionLost,
    Login,
    MachineError,
    command_words,
    connection_error,
    failed,
    failure,
    no_key,
    not_root,
)

_AT_ONCE = 8
"""Commands that run side by side: sshd drops some of more than ten that have not logged in yet (MaxStartups), and takes
no more than ten over one connection (MaxSessions); a hold of the machine is one of them."""
_ABSENT = 44
_TIMED_OUT = 124
_HOST_KEY_WORDS = ("HOST IDENTIFICATION HAS CHANGED", "Host key verification failed", "host key is known")


@dataclass(frozen=True)
class Done:
    """What a command said."""

    status: int
    stdout: str = field(repr=False)
    stderr: str = field(repr=False)


class Machine:
    """A machine; nothing is sent to it before its first command.

    Args:
        folder: the site's state folder, with the pinned host keys.
    """

    def __init__(self, login: Login, folder: Path) -> None:
        self.login = login
        self._folder = folder
        self._sockets = SocketFolder()
        self._ssh = ssh_words(login, folder, self._sockets.path)
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        self._opening = Opening()
        self._told: tuple[Outcome, MachineError] | None = None
        self._telling = threading.Lock()

    def run(self, command: Command, *, on_line: Callable[[str], None] | None = None) -> Done:
        """Run a command as root.

        Args:
            on_line: gets each line of its outputs as it comes.

        Raises:
            MachineError: it ended with a status that is not accepted, took too long, or was not allowed.
            ConnectionLost: the machine cannot be reached, or was lost in the middle.
        """
        outcome = self._exchange(command.argv, command.stdin.encode(), command.timeout_s, on_line)
        done = self._done(outcome, command.argv, command.timeout_s)
        if done.status not in command.accepted:
            raise failed(self.login, command, done.status, done.stdout + done.stderr)
        return done

    def script(self, text: str, timeout_s: float = 120) -> Done:
        """Run a shell script as root; it travels by standard input, so no process list shows it."""
        return self.run(Command(("sh", "-s"), stdin=text, timeout_s=timeout_s))

    def run_all(
        self,
        actions: Sequence[Quick],
        on_begin: Callable[[int], None] = lambda index: None,
        on_line: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Do several short things as root, one after the other, over one session; a failure ends it.

        A file has its content, mode and group, or is as it was; the folders above it are made.

        Args:
            on_begin: told the number of each, from 0, as it begins. on_line: see :meth:`run`.

        Raises:
            MachineError, ConnectionLost: as of :meth:`run`, of the one that failed or was cut off.
        """
        batch = Batch(actions, on_begin, on_line)
        outcome = self._exchange(("sh", "-s"), batch.script.encode(), batch.limit_s, batch.hear)
        done = self._done(outcome, batch.runs.argv, batch.limit_s)
        if not done.status:
            return
        index, status = batch.failed(done.stdout) or (batch.at, done.status)
        action, command = actions[index], batch.commands[index]
        if status == _TIMED_OUT and batch.seconds() >= command.timeout_s:
            raise self._too_long(command.argv, command.timeout_s)
        said = batch.said(index, done.stdout, done.stderr)
        if isinstance(action, File):
            raise failure(self.login, f"{action.path} cannot be written", said)
        raise failed(self.login, command, status, said)

    def upload(self, upload: Upload) -> None:
        """Write a file of ours there, whole or not at all."""
        self.run(Command(("true",)))  # tells what keeps us out, and leaves the connection that is used now
        try:
            send((*self._ssh, self.login.address), self._root, upload.local, upload.path, upload.digest)
        except TransferError as error:
            raise failure(self.login, f"{upload.path} cannot be written", str(error)) from None

    def download(self, path: PurePosixPath, local: Path, digest: str) -> None:
        """Write a file from there to ``local``; ``digest``: its SHA-256."""
        self.run(Command(("true",)))
        try:
            receive((*self._ssh, self.login.address), self._root, path, local, digest)
        except TransferError as error:
            raise failure(self.login, f"{path} cannot be read", str(error)) from None

    def read(self, path: PurePosixPath) -> bytes | None:
        """Return what a file holds, None when it is not there."""
        argv = ("sh", "-c", f'test -e "$1" || exit {_ABSENT}; exec cat -- "$1"', "sh", str(path))
        outcome = self._exchange(argv, b"", WRITE_S)
        done = self._done(outcome, argv, WRITE_S)
        if done.status not in (0, _ABSENT):
            raise failure(self.login, f"{path} cannot be read", done.stderr)
        return None if done.status else outcome.stdout

    def wait_until_reachable(self, timeout_s: float, on_wait: Callable[[str], None] = lambda why: None) -> None:
        """Wait until commands can be run; ``on_wait`` is told why not yet, about every second.

        Raises:
            MachineError: what does not pass by waiting, or the last reason when the time is up.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.run(Command(("true",), timeout_s=CONNECT_S))
            except ConnectionLost as error:
                if time.monotonic() > deadline:
                    raise
                on_wait(error.problems[0].what)
                time.sleep(1)
            else:
                return

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run([*self._ssh, "-O", "exit", self.login.address], capture_output=True, timeout=5, check=False)
        self._sockets.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def _root(self) -> tuple[str, ...]:
        return () if self.login.user == "root" else ("sudo", "-n")

    def _exchange(
        self,
        argv: tuple[str, ...],
        given: bytes,
        timeout_s: float,
        on_line: Callable[[str], None] | None = None,
    ) -> Outcome:
        # Without its private half, that of an agent may be meant.
        if not self.login.key.exists() and not self.login.key.with_name(f"{self.login.key.name}.pub").exists():
            raise no_key(self.login)
        words = (*self._ssh, self.login.address)
        with self._room:
            return self._opening.run(lambda begun: exchange(words, self._root, argv, given, timeout_s, on_line, begun))

    def _done(self, outcome: Outcome, argv: tuple[str, ...], timeout_s: float) -> Done:
        if outcome.status is None:
            raise self._trouble(outcome, argv, timeout_s)
        if outcome.status == _TIMED_OUT and outcome.seconds >= timeout_s:
            raise self._too_long(argv, timeout_s)
        texts = (outcome.stdout.decode("utf-8", "replace"), outcome.stderr.decode("utf-8", "replace"))
        return Done(outcome.status, *texts)

    def _trouble(self, outcome: Outcome, argv: tuple[str, ...], timeout_s: float) -> MachineError:
        if outcome.begun:
            if outcome.seconds >= timeout_s:
                return self._too_long(argv, timeout_s)
            what = f"the connection was lost while `{command_words(argv)}` ran"
            return ConnectionLost(Problem(self.login.name, what, "see whether the machine is up, and run it again"))
        with self._telling:
            if self._told is None or self._told[0] is not outcome:
                self._told = outcome, self._why_not(outcome)
            return self._told[1]

    def _why_not(self, outcome: Outcome) -> MachineError:
        """Return why a command did not even begin."""
        said = outcome.noise
        if any(words in said for words in _HOST_KEY_WORDS):
            return host_key_error(self._folder, self.login)
        if outcome.ssh_status not in (255, None) or "sudo:" in said:
            return not_root(self.login, said)
        return connection_error(self.login, said)

    def _too_long(self, argv: tuple[str, ...], timeout_s: float) -> MachineError:
        what = f"`{command_words(argv)}` took more than {timeout_s:g} s and was ended"
        return MachineError(Problem(self.login.name, what, "see what it waits for, and run it again"))


def make_key(path: Path, comment: str) -> str:
    """Return the public key of the private key at ``path``, which is made (0600) when it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        for left in (draft, draft.with_name(f"{draft.name}.pub")):
            left.unlink(missing_ok=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(draft)], check=True, timeout=30
        )
        draft.with_name(f"{draft.name}.pub").replace(path.with_name(f"{path.name}.pub"))
        draft.replace(path)
    done = subprocess.run(["ssh-keygen", "-y", "-f", str(path)], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()
