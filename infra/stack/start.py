"""``up``: start what is missing of the stack, side by side, and wait until all of it is healthy."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from types import FrameType

import psutil

from configs.problems import Problem, UserError
from infra.stack import environment, ports, processes, rest
from infra.stack.connection import forget_ended
from infra.stack.credentials import credentials_file, load_credentials
from infra.stack.provision import fingerprint
from infra.stack.settling import Wanted, settle
from infra.stack.state import (
    MLFLOW,
    PREFECT,
    WORKER,
    Part,
    Stack,
    change_lock,
    save_stack,
)
from infra.stack.worker import ready_text

PROVISION = "deployments"
PARTS = (PREFECT, MLFLOW, WORKER, PROVISION)
START_LIMIT_S = 180.0
STOP_LIMIT_S = 15.0

# Called with the name of a part, what it does now (a word), and a detail for people.
Report = Callable[[str, str, str], None]


@dataclass(frozen=True)
class Started:
    """The running stack, and the seconds each newly started part took; a part that was kept is not in it."""

    stack: Stack
    seconds: dict[str, float]


def up(checkout: Path, home: Path, wanted: Wanted, report: Report) -> Started:
    """Bring up the stack of ``home`` for ``checkout``; what runs already is left alone.

    On failure and on Ctrl-C whatever this call has started is stopped again.

    Raises:
        UserError: a port is taken, a child ended before it was healthy, or what runs contradicts ``wanted``.
    """
    waiting = change_lock(home, lambda: report("stack", "waiting", "for another mlops command"))
    with _interrupts() as interrupted, waiting:
        while True:
            stack = settle(checkout.absolute(), home, wanted)
            try:
                return _Start(stack, report, interrupted).run()
            except _TakenError as error:
                report("stack", "note", f"Starting again: {error}")


class _TakenError(Exception):
    """Somebody else was faster at a port; ``str()`` says who."""


class _Start:
    """One run of ``up``: the parts that it started, for undoing, and when."""

    def __init__(self, stack: Stack, report: Report, interrupted: Event) -> None:
        self.stack = stack
        self.report = report
        self.interrupted = interrupted
        self.began: dict[str, float] = {}
        self.children: dict[str, Part] = {}
        self.seconds: dict[str, float] = {}
        self.ready = stack.home / "worker.ready"
        self.before = {child.pid for child in psutil.Process().children()}

    def run(self) -> Started:
        stack = self.stack
        if stack.authenticated:
            load_credentials(stack.home)
            self.report(
                "stack", "note", f"Listens on {stack.host}; user and passwords are in {credentials_file(stack.home)}"
            )
        try:
            self._start_missing()
            forget_ended(self.stack.home)
            environment.write_dotenv(self.stack)
            self._wait()
        except BaseException:
            self._undo()
            raise
        if PROVISION in self.seconds:
            self.stack = replace(self.stack, deployed=fingerprint(self.stack.checkout))
        save_stack(self.stack)
        return Started(self.stack, self.seconds)

    def _start_missing(self) -> None:
        stack = self.stack
        folder = stack.home / "prefect"
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # the database holds the users' Secret blocks
        if not self._kept(PREFECT):
            server = environment.prefect_server_environment(stack)
            self._spawn(PREFECT, "infra.stack.prefect_server", [], server)
        if not self._kept(WORKER):
            self.ready.unlink(missing_ok=True)
            arguments = [str(self.ready)]
            self._spawn(WORKER, "infra.stack.worker", arguments, environment.child_environment(stack))
        if not self._kept(MLFLOW):
            arguments = [str(stack.home / "mlflow"), "--host", stack.host, "--port", str(stack.mlflow_port)]
            arguments += ["--auth"] if stack.authenticated else []
            self._spawn(MLFLOW, "infra.stack.mlflow_server", arguments, environment.mlflow_server_environment(stack))
        # A state folder without its database has lost its deployments, whatever the fingerprint says.
        fresh = PREFECT in self.children and not (stack.home / "prefect" / "prefect.db").exists()
        if fresh or stack.deployed != fingerprint(stack.checkout):
            self._spawn(PROVISION, "infra.stack.provision", [], environment.child_environment(stack))
        else:
            self.report(PROVISION, "kept", "unchanged")

    def _kept(self, name: str) -> bool:
        part = self.stack.parts.get(name)
        if not part:
            return False
        if self._healthy(name, part):
            self.report(name, "kept", f"already running, pid {part.pid}")
            return True
        process = processes.find(part)
        if process:  # it lives but does not answer: a hung server is as good as none
            why = "has to know where the servers are" if name == WORKER else "does not answer"
            self.report(name, "restarting", f"pid {part.pid} {why}")
            processes.stop([process], STOP_LIMIT_S)
        return False

    def _spawn(self, name: str, module: str, arguments: list[str], variables: dict[str, str]) -> None:
        log = self.stack.log(name)
        self.began[name] = time.monotonic()
        self.report(name, "starting", "")
        self.children[name] = processes.spawn(module, arguments, variables, log, self.stack.checkout)
        if name != PROVISION:
            # Written at once: should this command be killed, the next one knows what it left behind.
            self.stack = self.stack.with_part(name, self.children[name])
            save_stack(self.stack)

    def _wait(self) -> None:
        waiting = dict(self.children)
        deadline = time.monotonic() + START_LIMIT_S
        while waiting:
            if self.interrupted.is_set():  # the exception is lost where it came in a destructor
                raise KeyboardInterrupt
            for name, part in list(waiting.items()):
                status = processes.exit_status(part)
                if status == 0 if name == PROVISION else status is None and self._healthy(name, part):
                    del waiting[name]
                    self.seconds[name] = time.monotonic() - self.began[name]
                    self.report(name, "ready", self._address(name))
                elif status is not None:
                    self._check_port(name)
                    raise self._failure(name, f"ended with status {status} before it was ready")
            if waiting and time.monotonic() > deadline:
                raise self._failure(next(iter(waiting)), f"was not ready after {START_LIMIT_S:.0f} s")
            if waiting:
                time.sleep(0.1)

    def _healthy(self, name: str, part: Part) -> bool:
        if port := self.stack.port(name):
            url = {PREFECT: self.stack.prefect_api_url, MLFLOW: self.stack.mlflow_api_url}[name]
            return ports.listens(part.pid, port) and rest.answers(f"{url}/health")
        try:
            said = self.ready.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return False
        return said == ready_text(part.pid, self.stack.prefect_api_url, self.stack.mlflow_api_url)

    def _address(self, name: str) -> str:
        return {PREFECT: self.stack.prefect_url, MLFLOW: self.stack.mlflow_url}.get(name, "")

    def _check_port(self, name: str) -> None:
        port = self.stack.port(name)
        if told := port and ports.stranger(self.stack.host, port):
            raise _TakenError(f"{name} has ended, its {told}")

    def _failure(self, name: str, what: str) -> UserError:
        self.report(name, "failed", what)
        log = self.stack.log(name)
        lines = "".join(f"\n    | {line}" for line in processes.last_lines(log))
        return UserError(Problem(str(log), f"{name} {what}; its last lines:{lines}", "`mlops doctor` looks for causes"))

    def _undo(self) -> None:
        # An interrupt may come between a child's start and its being noted: all new children are asked of the system.
        found = [child for child in psutil.Process().children() if child.pid not in self.before]
        for name in self.children:
            self.stack = self.stack.with_part(name, None)
        if found:
            self.report("stack", "stopping", "what was just started")
        with contextlib.suppress(KeyboardInterrupt):
            processes.stop(found, STOP_LIMIT_S)
        save_stack(self.stack)


@contextlib.contextmanager
def _interrupts() -> Iterator[Event]:
    """SIGTERM and a closed terminal end ``up`` as Ctrl-C does: undone. Yields whether one has come."""
    come = Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        come.set()
        raise KeyboardInterrupt

    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield come
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
