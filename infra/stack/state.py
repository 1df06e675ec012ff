"""What the stack is and where: ``stack.json`` in the state folder, and the lock that guards changes to it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from configs.problems import Problem, UserError
from infra.stack.identity import path_of

LOOPBACK = "127.0.0.1"
PREFECT, MLFLOW, WORKER = "prefect", "mlflow", "worker"
WORK_POOL = "local"


@dataclass(frozen=True)
class Part:
    """One process of the stack; ``started`` (seconds since the epoch) tells it from a later one with its pid."""

    pid: int
    started: float


@dataclass(frozen=True)
class Stack:
    """The stack of one state folder, as it was last started.

    Attributes:
        home: the state folder, absolute.
        checkout: the folder whose ``prefect.yaml`` is deployed, absolute.
        host: address that both servers listen on; anything but loopback means that they ask for a password.
        parts: what was started, by name; whether it still lives is asked of ``processes.is_running``.
        deployed: fingerprint of what was deployed, None for nothing yet.
    """

    home: Path
    checkout: Path
    host: str = LOOPBACK
    prefect_port: int = 0
    mlflow_port: int = 0
    parts: Mapping[str, Part] = field(default_factory=dict)
    deployed: str | None = None

    @property
    def authenticated(self) -> bool:
        return not is_loopback(self.host)

    @property
    def prefect_url(self) -> str:
        """Where people find the pages of Prefect."""
        return f"http://{_reachable(self.host)}:{self.prefect_port}"

    @property
    def prefect_api_url(self) -> str:
        """What clients of Prefect ask; answered by this stack's server alone, see ``identity``."""
        return f"{self.prefect_url}{path_of(stack_id(self.home))}/api"

    @property
    def mlflow_url(self) -> str:
        """Where people find the pages of MLflow."""
        return f"http://{_reachable(self.host)}:{self.mlflow_port}"

    @property
    def mlflow_api_url(self) -> str:
        """What clients of MLflow ask; answered by this stack's server alone, see ``identity``."""
        return f"{self.mlflow_url}{path_of(stack_id(self.home))}"

    def port(self, part: str) -> int:
        """Where a server listens; 0 for what is none."""
        return {PREFECT: self.prefect_port, MLFLOW: self.mlflow_port}.get(part, 0)

    def log(self, part: str) -> Path:
        return self.home / "logs" / f"{part}.log"

    def with_part(self, name: str, part: Part | None) -> Stack:
        parts = {key: value for key, value in self.parts.items() if key != name}
        return replace(self, parts=parts if part is None else {**parts, name: part})


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _reachable(host: str) -> str:
    """The address under which this machine itself reaches a server that listens on ``host``."""
    host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 the wildcard is compared, not bound
    return f"[{host}]" if ":" in host else host


def stack_id(home: Path) -> str:
    """Marks the processes of this folder's stack; made from its path, so that orphans are found without any file."""
    return hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]


def load_stack(home: Path) -> Stack | None:
    """The stack of ``home``, or None when it was never started or was stopped."""
    stack = read_stack(home)
    return stack if stack and stack.parts else None


def read_stack(home: Path) -> Stack | None:
    """As :func:`load_stack`, but a stopped stack too, which still knows its ports."""
    try:
        values = json.loads((home / "stack.json").read_text(encoding="utf-8"))
        parts = {name: Part(**part) for name, part in values.pop("parts").items()}
        return Stack(home=home.absolute(), checkout=Path(values.pop("checkout")), parts=parts, **values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        # A file that no `up` has written. The processes are found by their mark, so nothing is lost with it.
        return None


def save_stack(stack: Stack) -> None:
    """Write ``stack.json``, whole or not at all. Holds no secret."""
    stack.home.mkdir(parents=True, exist_ok=True)
    values = {**asdict(stack), "checkout": str(stack.checkout)}
    del values["home"]
    draft = stack.home / f"stack.json.{os.getpid()}"
    draft.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    draft.replace(stack.home / "stack.json")


@contextmanager
def change_lock(home: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Let one process at a time start or stop the stack; ``on_wait`` is called once when another is at it.

    The lock is the kernel's: it ends with the process that holds it, however that ends.

    Raises:
        UserError: the state folder cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = (home / "stack.lock").open("a")
    except OSError as error:
        remedy = "make it writable, or name another folder by MLOPS_HOME"
        raise UserError(Problem(str(home), f"cannot be written: {error.strerror}", remedy)) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
