"""How the engine reaches machines: what :class:`infra.machines.ssh.Machine` does, and a test's own may do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from infra.machines.batch import Quick
from infra.machines.commands import Command, Upload


class Done(Protocol):
    """What a command said."""

    @property
    def status(self) -> int: ...
    @property
    def stdout(self) -> str: ...


class Reachable(Protocol):
    """A machine on which root's commands are run. All raise a UserError that names machine and reason."""

    def run(self, command: Command, *, on_line: Callable[[str], None] | None = None) -> Done: ...
    def script(self, text: str, timeout_s: float) -> Done: ...
    def run_all(
        self, actions: Sequence[Quick], on_begin: Callable[[int], None], on_line: Callable[[str], None]
    ) -> None: ...
    def upload(self, upload: Upload) -> None: ...
    def wait_until_reachable(self, timeout_s: float, on_wait: Callable[[str], None]) -> None: ...
