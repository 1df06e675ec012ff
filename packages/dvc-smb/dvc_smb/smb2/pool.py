"""A few connections to one share: opened when needed, replaced when broken."""

from __future__ import annotations

import asyncio
import math
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from dvc_smb.smb2.connection import Connection
from dvc_smb.smb2.errors import Disconnected, HostNotFound, LoginError, NoAnswer, ShareNotFound, SMBError
from dvc_smb.smb2.login import Login, Session

if TYPE_CHECKING:
    from dvc_smb.options import Options

T = TypeVar("T")

_ATTEMPTS = 7
_FIRST_DELAY = 0.25  # seconds; doubles with each attempt
_BUSY_LOAD = 8  # credits under way on every connection, beyond which another one is worth a login
_SHY = 30.0  # seconds without further attempts after the server has refused one more connection
_FORGIVING = 5.0  # seconds after which a share or host that was missing is looked for again
_NAME_SERVER_GRACE = 3.0


@dataclass
class _Lanes:
    """The connections of one event loop."""

    connections: list[Connection] = field(default_factory=list)
    opening: set[asyncio.Task[Connection]] = field(default_factory=set)
    shy_until: float = 0.0

    def alive(self) -> list[Connection]:
        for connection in self.connections:
            if connection.broken:
                self.connections = [other for other in self.connections if not other.broken]
                break
        return self.connections


class Pool:
    """Up to ``options.connections`` connections to ``share``, for any event loop and any process that asks.

    A login that the server has refused is never tried again: an account may be locked after a few.
    """

    def __init__(self, options: Options, share: str) -> None:
        self.options = options
        self.share = share
        self._pid = os.getpid()
        self._lanes: dict[asyncio.AbstractEventLoop, _Lanes] = {}
        self._inherited: list[dict[asyncio.AbstractEventLoop, _Lanes]] = []
        self._refused: SMBError | None = None
        self._refused_until = 0.0
        self._succeeded = False

    async def pick(self) -> Connection:
        """Return the connection with the least under way; the first call logs in, load opens the others meanwhile.

        Raises:
            SMBError: none can be had.
        """
        lanes = self._here()
        alive = lanes.alive()
        if not alive:
            return await self._first(lanes)
        best = min(alive, key=_load) if len(alive) > 1 else alive[0]
        if len(alive) < self.options.connections and best.load > _BUSY_LOAD:
            self._open_missing(lanes)
        return best

    async def all(self) -> list[Connection]:
        """Return all connections, opened if need be; fewer, but at least one, if the server allows no more.

        Raises:
            SMBError: none can be had.
        """
        lanes = self._here()
        if not lanes.alive():
            await self._first(lanes)
        self._open_missing(lanes)
        if lanes.opening:
            await asyncio.wait(lanes.opening)
        return list(lanes.alive()) or [await self._first(lanes)]

    async def close(self) -> None:
        """Close this event loop's connections; the pool can be used again."""
        lanes = self._here()
        del self._lanes[asyncio.get_running_loop()]
        for task in lanes.opening:
            task.cancel()
        if lanes.opening:
            await asyncio.wait(lanes.opening)
        await asyncio.gather(*(connection.close() for connection in lanes.connections))

    async def retrying(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Return what ``operation`` returns, repeated after a lost connection or a server too busy.

        Between attempts lies a delay that doubles and is partly random, so that many clients do not return at once.
        After a few attempts, or twice the timeout, the error is raised. The operation has to be one that may happen
        twice.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + 2 * self.options.timeout
        delay = _FIRST_DELAY
        for _ in range(_ATTEMPTS - 1):
            try:
                return await operation()
            except (ConnectionError, TimeoutError):
                if not self._succeeded or clock() + delay > end:
                    raise
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, protects nothing
            delay *= 2
        return await operation()

    def _here(self) -> _Lanes:
        if self._pid != os.getpid():
            # The parent's sockets: to close them in its event loop would disturb it, so they are only kept aside.
            self._inherited.append(self._lanes)
            self._lanes = {}
            self._pid = os.getpid()
        loop = asyncio.get_running_loop()
        lanes = self._lanes.get(loop)
        if lanes is None:
            self._lanes = {other: kept for other, kept in self._lanes.items() if not other.is_closed()}
            lanes = self._lanes[loop] = _Lanes()
        return lanes

    async def _first(self, lanes: _Lanes) -> Connection:
        """Log in once for all who wait."""
        task = next(iter(lanes.opening), None) or self._open(lanes)
        try:
            return await asyncio.shield(task)
        except SMBError as error:
            raise error.again() from None
        except asyncio.CancelledError:
            if task.cancelled():
                raise Disconnected(f"the connections to {self.options.server} are closed") from None
            raise

    def _open_missing(self, lanes: _Lanes) -> None:
        missing = self.options.connections - len(lanes.alive()) - len(lanes.opening)
        if missing > 0 and not self._refusal() and asyncio.get_running_loop().time() >= lanes.shy_until:
            for _ in range(missing):
                self._open(lanes)

    def _open(self, lanes: _Lanes) -> asyncio.Task[Connection]:
        task = asyncio.ensure_future(self._connect())
        lanes.opening.add(task)
        task.add_done_callback(lambda done: self._opened(lanes, done))
        return task

    def _opened(self, lanes: _Lanes, task: asyncio.Task[Connection]) -> None:
        lanes.opening.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._succeeded = True
            lanes.connections.append(task.result())
            return
        if lanes.alive():
            lanes.shy_until = asyncio.get_running_loop().time() + _SHY
        if isinstance(error, (LoginError, ShareNotFound, HostNotFound)):
            self._refused = error
            self._refused_until = math.inf if isinstance(error, LoginError) else time.monotonic() + _FORGIVING

    def _refusal(self) -> SMBError | None:
        """Return why the next login would fail like the one before, of which the server need not know."""
        return self._refused if time.monotonic() < self._refused_until else None

    async def _connect(self) -> Connection:
        if refusal := self._refusal():
            raise refusal.again()
        session = await _log_in_aside(self.options, self.share)
        return await Connection.open(session, self.options.timeout)


def _load(connection: Connection) -> int:
    return connection.load


async def _log_in_aside(options: Options, share: str) -> Session:
    """Log in, in a thread that does not keep the process from ending, should a name server be silent."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Session] = loop.create_future()
    login = Login(options, share)

    def deliver(session: Session | None, error: BaseException | None) -> None:
        if future.done():
            if session:
                session.socket.close()
        elif session:
            future.set_result(session)
        elif error:
            future.set_exception(error)

    def work() -> None:
        session = error = None
        try:
            session = login.run()
        except BaseException as problem:
            error = problem
        try:
            loop.call_soon_threadsafe(deliver, session, error)
        except RuntimeError:  # the loop is closed: nobody waits
            if session:
                session.socket.close()

    threading.Thread(target=work, name=f"smb-login-{options.host}", daemon=True).start()
    try:
        async with asyncio.timeout(options.login_timeout + _NAME_SERVER_GRACE):
            return await future
    except asyncio.CancelledError:
        login.abort()
        raise
    except TimeoutError as error:
        if isinstance(error, SMBError):
            raise
        login.abort()
        raise NoAnswer(f"{options.server} cannot be looked up: the name server does not answer") from None
