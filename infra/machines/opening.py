"""The first of those who come together opens the connection, and the others share what becomes of it.

Each for itself, they would log in as often as there are steps: sshd drops some of many that begin at once
(MaxStartups), and since 9.8 it refuses for a while whoever came in vain several times (PerSourcePenalties).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

from infra.machines.exchange import Outcome

Exchange = Callable[[Callable[[], None]], Outcome]
"""A command over ssh, given what is to be called as soon as the machine's shell has answered."""


class Opening:
    """The way into one machine; used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = False
        self._last: Outcome | None = None

    def run(self, command: Exchange) -> Outcome:
        """Run a command; while nobody has got in, one at a time, and those that waited fare as the one before them."""
        if self._open:
            return command(lambda: None)
        known = self._last
        with ExitStack() as turn:
            turn.enter_context(self._lock)
            if self._last is not None and self._last is not known and not self._open:
                return self._last

            def answered() -> None:
                self._open = True
                turn.close()

            outcome = command(answered)
            if not outcome.begun:
                self._last = outcome
            return outcome
