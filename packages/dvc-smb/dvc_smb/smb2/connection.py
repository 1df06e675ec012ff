"""Many requests at once over one authenticated socket, on asyncio ([MS-SMB2] 3.2.4.1, 3.2.5.1).

The hot path: twenty thousand small files are sixty thousand requests. So a compound is packed into one buffer, all
that is sent in one turn of the event loop leaves in one write, and answers are cut out of one receive buffer.
"""

from __future__ import annotations

import array
import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast

from dvc_smb.smb2 import status
from dvc_smb.smb2.errors import Disconnected, NoAnswer, ProtocolError, SMBError
from dvc_smb.smb2.login import ANSWER, ASYNC, HEADER, MARK, RELATED, SIGNED, Session
from dvc_smb.smb2.messages import CREDIT_SIZE, HEADER_SIZE, OPLOCK_BREAK, Request, echo
from dvc_smb.smb2.security import TRANSFORM_SIZE

#: Never more in one request, whatever a server offers: larger ones are slower and cost memory.
LARGEST_PAYLOAD = 4 << 20

_LARGEST_FRAME = (16 << 20) + (1 << 16)  # a compound's answers may come together
_LARGEST_COST = _LARGEST_FRAME // CREDIT_SIZE
_CREDITS_WANTED = 1024
_CREDITS_BESIDE = 8  # of a compound, beside those of its payload
_INBOX_SIZE = 1 << 16
_WRITE_HIGH = 4 << 20
_UNSOLICITED_ID = 0xFFFFFFFFFFFFFFFF
_UNSOLICITED_MOST = 100
_SEND_GRACE = 2.0  # seconds that a connection being closed waits for what is under way
_CHECKS = 4  # times that the clock looks within one timeout
_NO_SIGNATURE = b""


class Reply(NamedTuple):
    """An answer: its NTSTATUS, and the whole message with its header. The message stays valid."""

    status: int
    message: memoryview


class _Pending(NamedTuple):
    """A request under way."""

    future: asyncio.Future[Reply]
    command: int
    charge: int
    interim: bool


class Connection(asyncio.BufferedProtocol):
    """One connection with a user and a share; made by :meth:`open`.

    Attributes:
        broken: why nothing can be sent any more, or None.
    """

    def __init__(self, session: Session, timeout: float) -> None:
        self.broken: SMBError | None = None
        self.peer = session.peer
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._session_id = session.session_id
        self._tree_id = session.tree_id
        self._message_id = session.message_id
        self._signer = session.signer
        self._cipher = session.cipher
        self._signed = SIGNED if session.signer else 0
        self._limits = (session.max_read, session.max_write, session.max_transact)
        self._transport: asyncio.Transport | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        # Credits: those free to spend, those spent on requests under way, and the most that both were together.
        self._free = session.credits
        self._spent = 0
        self._most = session.credits
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._waiting = 0  # what they all cost
        self._asked_with = -1  # credits free when more were last asked for, in vain so far
        self._paused = False
        self._pending: dict[int, _Pending] = {}
        self._outbox: list[bytes | bytearray] = []
        # Received and not yet cut into frames; a frame that does not fit gets a buffer of its own.
        self._inbox = memoryview(bytearray(_INBOX_SIZE))
        self._filled = 0
        self._large: memoryview | None = None
        # For the clock.
        self._timer: asyncio.TimerHandle | None = None
        self._answered = 0
        self._received = 0
        self._last_life: tuple[int, int, int] = (0, 0, 0)
        self._silent_checks = 0
        self._unsolicited = 0

    @classmethod
    async def open(cls, session: Session, timeout: float) -> Connection:
        """Take over the socket of ``session``; ``timeout`` is the longest silence, in seconds, while an answer is due.

        The socket is closed if this fails.
        """
        try:
            session.socket.setblocking(False)
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(lambda: cls(session, timeout), sock=session.socket)
        except BaseException:
            session.socket.close()
            raise
        return connection

    @property
    def load(self) -> int:
        """Credits that requests under way and waiting cost: one for each, more for large ones."""
        return self._spent + self._waiting

    @property
    def max_read(self) -> int:
        """The most bytes to ask for in one READ: what the server allows, and what its credits can ever pay for."""
        return self._payable(self._limits[0])

    @property
    def max_write(self) -> int:
        """The most bytes to send in one WRITE."""
        return self._payable(self._limits[1])

    @property
    def max_transact(self) -> int:
        """The most bytes to ask for in one QUERY_DIRECTORY or QUERY_INFO."""
        return self._payable(self._limits[2])

    def _payable(self, limit: int) -> int:
        return min(limit, LARGEST_PAYLOAD, max(1, self._most - _CREDITS_BESIDE) * CREDIT_SIZE)

    async def send(self, requests: Sequence[Request]) -> list[asyncio.Future[Reply]]:
        """Send one request, or several as one compound whose later ones relate to the first (3.2.4.1.4).

        Waits, first come first served, until the server's credits allow it. An answer that nobody awaits does no harm.

        Returns:
            One future per request, each of a :class:`Reply` or of the SMBError that broke the connection.

        Raises:
            SMBError: the connection is broken, or the server never grants the credits that this costs.
            ValueError: the answers could be larger than 16 MiB together.
        """
        cost = 0
        for request in requests:
            cost += request.charge
        if self._waiters or self._paused or cost > self._free or cost > _LARGEST_COST or self.broken:
            await self._reserve(cost)
        else:
            self._free -= cost
            self._spent += cost
        return self._transmit(requests)

    async def close(self) -> None:
        """Let what is under way end, for a moment, and close the socket."""
        if self._pending and not self.broken:
            await asyncio.wait([entry.future for entry in self._pending.values()], timeout=_SEND_GRACE)
        self._break(Disconnected(f"the connection to {self.peer} is closed"))
        await self._closed

    # Credits

    async def _reserve(self, cost: int) -> None:
        if self.broken:
            raise self.broken.again()
        if cost > _LARGEST_COST:
            raise ValueError(f"a compound that costs {cost} credits is too large: send its requests one by one")
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append((cost, future))
        self._waiting += cost
        self._serve_waiters()
        try:
            await future
        except asyncio.CancelledError:
            # Cancelled while waiting: skipped when its turn comes. Cancelled after that: the credits are free again.
            if not future.cancelled() and not future.exception():
                self._free += cost
                self._spent -= cost
            self._serve_waiters()
            raise
        if self.broken:
            raise self.broken.again()

    def _serve_waiters(self) -> None:
        while self._waiters and not self._paused and not self.broken:
            cost, future = self._waiters[0]
            if cost > self._free and not future.cancelled():
                if self._pending or self._spent:
                    return  # what is under way, or about to be sent, will bring credits
                if self._free > self._asked_with:
                    self._ask_for_credits()
                    return
                sentence = f"{self.peer} grants {self._free} credits, but one request needs {cost}"
                future.set_exception(ProtocolError(f"{sentence}: raise the server's limit (smb2 max credits)"))
            elif not future.cancelled():
                self._free -= cost
                self._spent += cost
                future.set_result(None)
            self._asked_with = -1
            self._waiters.popleft()
            self._waiting -= cost

    def _ask_for_credits(self) -> None:
        """Ask by an ECHO, which costs one credit and may bring many."""
        if not self._free:
            self._break(ProtocolError(f"{self.peer} lets nothing more be asked (no credits)"))
            return
        self._asked_with = self._free
        self._free -= 1
        self._spent += 1
        self._transmit([echo()])

    # Sending

    def _transmit(self, requests: Sequence[Request]) -> list[asyncio.Future[Reply]]:
        count = len(requests)
        size = 4
        for _, _, body, data in requests:
            size += -size + 4 & 7  # each message of a compound starts at a multiple of 8
            size += HEADER_SIZE + len(body) + len(data)
        frame = bytearray(size)
        view = memoryview(frame)
        signer = self._signer
        futures = []
        flags = self._signed
        at = 4
        for number, (command, charge, body, data) in enumerate(requests, 1):
            message_id = self._message_id
            self._message_id = message_id + charge
            middle = at + HEADER_SIZE
            end = middle + len(body)
            wanted = charge
            if number < count:
                after = end + len(data)
                after += -after + 4 & 7
                following = after - at
            else:
                after = size
                following = 0
                lacking = _CREDITS_WANTED - self._free - self._spent
                if lacking > 0:
                    wanted += lacking
            HEADER.pack_into(
                frame,
                at,
                MARK,
                64,
                charge,
                0,
                command,
                wanted,
                flags,
                following,
                message_id,
                0,
                self._tree_id,
                self._session_id,
                _NO_SIGNATURE,
            )
            view[middle:end] = body
            if data:
                view[end : end + len(data)] = data
            if signer:
                signer.sign(view[at:after], message_id)
            future: asyncio.Future[Reply] = self._loop.create_future()
            self._pending[message_id] = _Pending(future, command, charge, False)
            futures.append(future)
            flags = self._signed | RELATED
            at = after
        if self._cipher:
            parts = self._cipher.seal(view[4:])
            frame = bytearray(b"".join(((size - 4 + TRANSFORM_SIZE).to_bytes(4, "big"), *parts)))
        else:
            frame[:4] = (size - 4).to_bytes(4, "big")
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(frame)
        if self._timer is None:
            self._start_clock()
        return futures

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        if self._transport and not self.broken:
            if len(outbox) == 1:
                self._transport.write(outbox[0])
            else:
                self._transport.writelines(outbox)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._serve_waiters()

    def connection_lost(self, exc: Exception | None) -> None:
        why = f" ({exc})" if exc else ""
        self._break(Disconnected(f"the connection to {self.peer} is lost{why}"))
        if not self._closed.done():
            self._closed.set_result(None)

    def eof_received(self) -> bool:
        return False

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._inbox[self._filled :] if self._large is None else self._large[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self.broken:
            return
        self._received += nbytes
        self._filled += nbytes
        try:
            if self._large is None:
                self._cut_frames()
            elif self._filled == len(self._large):
                frame, self._large, self._filled = self._large, None, 0
                self._take(frame)
        except SMBError as error:
            self._break(error)
        else:
            if self._waiters:
                self._serve_waiters()

    # Receiving

    def _cut_frames(self) -> None:
        inbox, at, end = self._inbox, 0, self._filled
        while end - at >= 4:
            size = int.from_bytes(inbox[at : at + 4], "big")
            if size > _LARGEST_FRAME:
                raise ProtocolError(f"{self.peer} announces an answer of {size} bytes, more than anything asked for")
            at += 4
            if size <= end - at:
                self._take(memoryview(bytearray(inbox[at : at + size])))
                at += size
            elif size + 4 > _INBOX_SIZE:
                self._large = memoryview(bytearray(size))
                self._filled = end - at
                self._large[: self._filled] = inbox[at:end]
                return
            else:
                at -= 4
                break
        if at:
            inbox[: end - at] = inbox[at:end]
            self._filled = end - at

    def _take(self, frame: memoryview) -> None:
        """Hand the answers of one frame to who waits for them."""
        if self._cipher:
            frame = self._cipher.open(frame)
        rest = frame
        while True:
            if len(rest) < HEADER_SIZE:
                raise ProtocolError(f"{self.peer} sent an answer that is cut short")
            (mark, size, _, state, command, granted, flags, following, message_id, _, _, _, _) = HEADER.unpack_from(
                rest
            )
            if mark != MARK or size != HEADER_SIZE or not flags & ANSWER:
                raise ProtocolError(f"{self.peer} sent something that is no answer of SMB 2 or 3")
            message = rest
            if following:
                if following & 7 or following < HEADER_SIZE or following > len(rest):
                    raise ProtocolError(f"{self.peer} sent answers that overlap")
                message, rest = rest[:following], rest[following:]
            self._settle(message, state, command, granted, flags, message_id)
            if not following:
                break
        total = self._free + self._spent
        if total > self._most or not self._pending:
            self._most = total

    def _settle(self, message: memoryview, state: int, command: int, granted: int, flags: int, message_id: int) -> None:
        pending = self._pending.get(message_id)
        if pending is None:
            self._ignore(command, message_id)
            return
        if pending.command != command:
            raise ProtocolError(f"{self.peer} answered a question that was not asked")
        interim = state == status.PENDING
        if interim:
            # 3.2.5.1.5; the final answer follows. It may be unsigned (3.2.5.1.3).
            if not flags & ASYNC or pending.interim:
                raise ProtocolError(f"{self.peer} keeps putting off an answer")
            self._pending[message_id] = pending._replace(interim=True, charge=0)
        else:
            if self._signer:
                if not flags & SIGNED:
                    raise self._unsigned(state)
                self._signer.check(message, message_id)
            if state in status.SESSION_GONE:
                raise Disconnected(f"{self.peer} has ended the session ({status.name(state)})")
            del self._pending[message_id]
        self._answered += 1
        self._free += granted
        self._spent -= pending.charge
        if not interim and not pending.future.done():
            pending.future.set_result(Reply(state, message))

    def _unsigned(self, state: int) -> SMBError:
        if state in status.SESSION_GONE:
            return Disconnected(f"{self.peer} has ended the session ({status.name(state)})")
        return ProtocolError(f"{self.peer} sent an unsigned answer in a signed session")

    def _ignore(self, command: int, message_id: int) -> None:
        """Pass over what the server sends by itself, the breaking of an oplock (2.2.23); we hold none."""
        self._unsolicited += 1
        if message_id != _UNSOLICITED_ID or command != OPLOCK_BREAK or self._unsolicited > _UNSOLICITED_MOST:
            raise ProtocolError(f"{self.peer} answered a question that was not asked")

    # The end

    def _break(self, error: SMBError) -> None:
        if self.broken:
            return
        self.broken = error
        pending, self._pending = self._pending, {}
        waiters, self._waiters = self._waiters, deque()
        futures: list[asyncio.Future[Any]] = [entry.future for entry in pending.values()]
        futures += [waiter for _, waiter in waiters]
        for future in futures:
            if not future.done():
                future.set_exception(error.again())
                future.exception()  # nobody need await it
        if self._timer:
            self._timer.cancel()
        if self._transport:
            self._transport.abort()

    def _start_clock(self) -> None:
        self._last_life = self._life()
        self._silent_checks = 0
        self._timer = self._loop.call_later(self._timeout / _CHECKS, self._check_clock)

    def _life(self) -> tuple[int, int, int]:
        """What changes as long as answers, or a good part of a large one, arrive, or a large request is leaving."""
        return self._answered, self._received >> 12, _unsent(self._transport) if self._transport else 0

    def _check_clock(self) -> None:
        self._timer = None
        if not self._pending or self.broken:
            return
        life = self._life()
        self._silent_checks = self._silent_checks + 1 if life == self._last_life else 0
        self._last_life = life
        if self._silent_checks >= _CHECKS:
            self._break(NoAnswer(f"{self.peer} has not answered for {self._timeout:g} seconds"))
            return
        self._timer = self._loop.call_later(self._timeout / _CHECKS, self._check_clock)


def _unsent(transport: asyncio.Transport) -> int:
    """Return the bytes that were not yet sent and acknowledged, those in the system's buffer included on Linux."""
    unsent = array.array("i", [0])
    with suppress(ImportError, OSError):
        from fcntl import ioctl
        from termios import TIOCOUTQ

        ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, unsent)
    return transport.get_write_buffer_size() + unsent[0]
