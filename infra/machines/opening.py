"""The first of those who come together opens the connection, and the others share what becomes of it.

Each for itself, they would log in as often as there are steps: sshd drops some of many that begin at once
(MaxStartups), and since 9.8 it refuses for a while whoever came in vain several times (PerSourcePenalties).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from infra.machines.exchange import Outcome

Exchange = Callable[[Callable[[], None]], Outcome]
"""A command over ssh, given what is to be called as soon as the machine's shell has answered."""


class Opening:
    """The way into one machine; used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = False
        self._tries = 0
        self._last: Outcome | None = None

    def run(self, command: Exchange) -> Outcome:
        """Run a command; while nobody has got in, one at a time, and those that waited fare as the one before them."""
        if self._open:
            return command(lambda: None)
        tries = self._tries
        self._lock.acquire()
        if self._tries != tries and not self._open and self._last is not None:
            self._lock.release()
            return self._last
        waited = threading.Event()

        def answered() -> None:
            self._open = True
            waited.set()
            self._lock.release()

        try:
            outcome = command(answered)
        except BaseException:
            if not waited.is_set():
                self._lock.release()
            raise
        if not waited.is_set():
            self._last = outcome
            self._tries += 1
            self._lock.release()
        return outcome
