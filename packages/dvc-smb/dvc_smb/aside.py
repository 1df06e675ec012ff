"""Reading, writing and hashing local files in threads, a few at a time, while the connections go on.

The smallest files are done in the event loop itself: handing one of 1 kB to a thread costs what it saves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, cast

#: Threads at once; more of them only wait for the same disk.
THREADS = 2
#: Pieces handed over together; more of them, and the connections idle until the last one is done.
BATCH = 8

#: Bytes from which on a piece goes to a thread: about where its md5 takes as long as handing it over.
WORTHWHILE = 64 << 10

T = TypeVar("T")
_Result = tuple[asyncio.Future[Any], Any, BaseException | None]


class Aside:
    """Runs functions in threads, first come first served; of one event loop."""

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Future[Any], Callable[[], Any]]] = []
        self._running = 0

    async def run(self, function: Callable[[], T], size: int) -> T:
        """Return what ``function`` returns, which works on ``size`` bytes, or raise what it raises.

        Once begun it is not interrupted.
        """
        if size < WORTHWHILE:
            return function()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((future, function))
        if self._running < THREADS:
            self._start(loop)
        return cast(T, await future)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        self._running += 1
        loop.run_in_executor(None, _do, batch).add_done_callback(lambda done: self._done(loop, done.result()))

    def _done(self, loop: asyncio.AbstractEventLoop, results: list[_Result]) -> None:
        self._running -= 1
        for future, result, error in results:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        if self._waiting:
            self._start(loop)


def _do(batch: list[tuple[asyncio.Future[Any], Callable[[], Any]]]) -> list[_Result]:
    results: list[_Result] = []
    for future, function in batch:
        try:
            results.append((future, None if future.cancelled() else function(), None))
        except Exception as error:
            results.append((future, None, error))
    return results
