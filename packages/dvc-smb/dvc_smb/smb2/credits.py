"""What a server lets be asked at once, shared fairly: first come, first served ([MS-SMB2] 3.2.4.1.2, 3.2.5.1.4).

A credit is also a message id, and ids are used in order: who has the credits stays within the server's window.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from dvc_smb.smb2.errors import ProtocolError, SMBError


class Credits:
    """The credits of one connection.

    Attributes:
        free: granted and not spent.
        spent: on requests that are under way, or will be sent in this turn of the event loop.
        most: the most that were free, which is what one request can ever cost. (Free and spent together may be more:
            servers grant anew for what they have received and not yet answered.)
        waiting: what all those cost that wait.
        paused: nothing is handed out, because the socket takes no more.

    Args:
        granted: free at first.
        peer: for messages.
        ask: sends a request whose answer may bring credits, and which has been paid.
        starved: called when nothing can be asked any more.
    """

    def __init__(
        self, granted: int, peer: str, ask: Callable[[], object], starved: Callable[[SMBError], object]
    ) -> None:
        self.free = granted
        self.spent = 0
        self.most = granted
        self.waiting = 0
        self.paused = False
        self._peer = peer
        self._ask = ask
        self._starved = starved
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._asked_with = -1  # credits that were free when more were asked for, in vain so far

    def pay(self, cost: int) -> bool:
        """Spend credits if that is possible at once."""
        if self._waiters or self.paused or cost > self.free:
            return False
        self.free -= cost
        self.spent += cost
        return True

    async def wait(self, cost: int) -> None:
        """Spend credits as soon as all who came before have theirs.

        Raises:
            SMBError: the server never grants so many, or the connection is broken.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((cost, future))
        self.waiting += cost
        self.serve()
        try:
            await future
        except asyncio.CancelledError:
            # Cancelled while waiting: skipped when its turn comes. Cancelled after that: the credits are free again.
            if not future.cancelled() and not future.exception():
                self.free += cost
                self.spent -= cost
            self.serve()
            raise

    def settle(self, granted: int, charge: int) -> None:
        """Note an answer: it grants credits, and its request's are no longer under way."""
        self.free += granted
        self.spent -= charge

    def settled(self) -> None:
        """Note that all answers of a frame are settled; in between, a compound's grants are not complete."""
        if self.free > self.most or not self.spent:
            self.most = self.free

    def serve(self) -> None:
        """Hand free credits to those who wait."""
        while self._waiters and not self.paused:
            cost, future = self._waiters[0]
            if cost > self.free and not future.cancelled():
                if self.spent:
                    return  # what is under way will bring credits
                if self.free > self._asked_with:
                    self._ask_for_more()
                    return
                sentence = f"{self._peer} grants {self.free} credits, but one request needs {cost}"
                future.set_exception(ProtocolError(f"{sentence}: raise the server's limit (smb2 max credits)"))
            elif not future.cancelled():
                self.free -= cost
                self.spent += cost
                future.set_result(None)
            self._asked_with = -1
            self._waiters.popleft()
            self.waiting -= cost

    def _ask_for_more(self) -> None:
        if not self.free:
            self._starved(ProtocolError(f"{self._peer} lets nothing more be asked (no credits)"))
            return
        self._asked_with = self.free
        self.free -= 1
        self.spent += 1
        self._ask()

    def fail(self, error: SMBError) -> None:
        """Fail all who wait."""
        waiters, self._waiters = self._waiters, deque()
        self.waiting = 0
        for _, future in waiters:
            if not future.done():
                future.set_exception(error.again())
