"""Notices that a peer has fallen silent while something is expected of it."""

from __future__ import annotations

import array
import asyncio
from collections.abc import Callable
from contextlib import suppress

_LOOKS = 4  # within one timeout


class Watch:
    """A clock that costs nothing between its looks.

    Args:
        timeout: seconds without a sign of life, after which ``silent`` is called; up to a quarter more may pass.
        life: returns something that changes as long as the peer lives.
        waiting: returns whether anything is expected of it; if not, the watch stops.
    """

    def __init__(
        self, timeout: float, life: Callable[[], object], waiting: Callable[[], bool], silent: Callable[[], object]
    ) -> None:
        self._pause = timeout / _LOOKS
        self._life = life
        self._waiting = waiting
        self._silent = silent
        self._timer: asyncio.TimerHandle | None = None
        self._seen: object = None
        self._unchanged = 0

    def start(self) -> None:
        """Start, unless it runs already."""
        if self._timer is None:
            self._seen = self._life()
            self._unchanged = 0
            self._again()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._waiting():
            return
        life = self._life()
        self._unchanged = self._unchanged + 1 if life == self._seen else 0
        self._seen = life
        if self._unchanged < _LOOKS:
            self._again()
        else:
            self._silent()


def unsent(transport: asyncio.Transport) -> int:
    """Return the bytes not yet sent, and on Linux those too that the peer's system has not yet acknowledged."""
    count = array.array("i", [0])
    with suppress(ImportError, OSError):
        from fcntl import ioctl
        from termios import TIOCOUTQ

        ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, count)
    return transport.get_write_buffer_size() + count[0]
