"""``up``: start what is missing of the stack, side by side, and wait until all of it is healthy."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import psutil

from configs.problems import Problem, UserError
from infra.stack import environment, ports, processes, rest
from infra.stack.connection import forget_ended
from infra.stack.credentials import credentials_file, load_credentials
from infra.stack.provision import fingerprint
from infra.stack.state import (
    LOOPBACK,
    MLFLOW,
    PREFECT,
    WORKER,
    Part,
    Stack,
    change_lock,
    read_stack,
    save_stack,
)

PROVISION = "deployments"
PARTS = (PREFECT, MLFLOW, WORKER, PROVISION)
START_LIMIT_S = 180.0
STOP_LIMIT_S = 15.0

# Called with the name of a part, what it does now (a word), and a detail for people.
Report = Callable[[str, str, str], None]


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; None leaves the choice to ``up``."""

    host: str | None = None
    prefect_port: int | None = None
    mlflow_port: int | None = None


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
    with _terminated_as_interrupt(), change_lock(home, lambda: report("stack", "waiting", "for another mlops command")):
        stack = _settle(checkout.absolute(), home, wanted)
        return _Start(stack, report).run()


def _settle(checkout: Path, home: Path, wanted: Wanted) -> Stack:
    """Decide host and ports, from what runs, what was used last, and what the user asked for."""
    last = read_stack(home)
    stack = replace(last, checkout=checkout) if last else Stack(home=home, checkout=checkout)
    for name, part in stack.parts.items():
        if not processes.is_running(part):
            stack = stack.with_part(name, None)
    if last and stack.parts and last.checkout != checkout:
        raise UserError(
            Problem(str(home), f"serves another checkout, {last.checkout}", "run `mlops down` there, or set MLOPS_HOME")
        )
    host = wanted.host or (stack.host if stack.parts else LOOPBACK)
    if stack.parts:
        _same_as_running(stack, wanted)
    stack = replace(stack, host=host)
    keep = PREFECT in stack.parts, MLFLOW in stack.parts
    prefect_port = stack.prefect_port if keep[0] else _port(stack, wanted.prefect_port, stack.prefect_port or 4200, 0)
    stack = replace(stack, prefect_port=prefect_port)
    mlflow_port = stack.mlflow_port if keep[1] else _port(stack, wanted.mlflow_port, stack.mlflow_port or 5000, 1)
    return replace(stack, mlflow_port=mlflow_port)


def _port(stack: Stack, named: int | None, usual: int, server: int) -> int:
    option = ("--prefect-port", "--mlflow-port")[server]
    other = stack.prefect_port if server else (stack.mlflow_port if MLFLOW in stack.parts else 0)
    return ports.choose(stack.host, named, usual, frozenset({other} - {0}), option)


def _same_as_running(stack: Stack, wanted: Wanted) -> None:
    told = (
        ("--host", wanted.host, stack.host, bool({PREFECT, MLFLOW} & set(stack.parts))),
        ("--prefect-port", wanted.prefect_port, stack.prefect_port, PREFECT in stack.parts),
        ("--mlflow-port", wanted.mlflow_port, stack.mlflow_port, MLFLOW in stack.parts),
    )
    problems = [
        Problem(f"{option} {asked}", f"the stack is already running with {now}", "run `mlops down` first")
        for option, asked, now, running in told
        if running and asked is not None and asked != now
    ]
    if problems:
        raise UserError(problems)


class _Start:
    """One run of ``up``: the parts that it started, for undoing, and when."""

    def __init__(self, stack: Stack, report: Report) -> None:
        self.stack = stack
        self.report = report
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
        (stack.home / "prefect").mkdir(parents=True, exist_ok=True)
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
            self.report(name, "restarting", f"pid {part.pid} does not answer")
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
            for name, part in list(waiting.items()):
                status = processes.exit_status(part)
                if status == 0 if name == PROVISION else status is None and self._healthy(name, part):
                    del waiting[name]
                    self.seconds[name] = time.monotonic() - self.began[name]
                    self.report(name, "ready", self._address(name))
                elif status is not None:
                    raise self._failure(name, f"ended with status {status} before it was ready")
            if waiting and time.monotonic() > deadline:
                raise self._failure(next(iter(waiting)), f"was not ready after {START_LIMIT_S:.0f} s")
            if waiting:
                time.sleep(0.1)

    def _healthy(self, name: str, part: Part) -> bool:
        if name == PREFECT:
            return rest.answers(f"{self.stack.prefect_api_url}/health")
        if name == MLFLOW:
            return rest.answers(f"{self.stack.mlflow_url}/health")
        try:
            return int(self.ready.read_text(encoding="utf-8")) == part.pid
        except (OSError, ValueError):
            return False

    def _address(self, name: str) -> str:
        return {PREFECT: self.stack.prefect_url, MLFLOW: self.stack.mlflow_url}.get(name, "")

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
def _terminated_as_interrupt() -> Iterator[None]:
    """SIGTERM and a closed terminal end ``up`` as Ctrl-C does: undone."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
