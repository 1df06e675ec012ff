"""Many requests at once over one authenticated socket, on asyncio ([MS-SMB2] 3.2.4.1, 3.2.5.1).

The hot path: twenty thousand small files are sixty thousand requests. So a compound is packed into one buffer, all
that is sent in one turn of the event loop leaves in one write, and answers are cut out of one receive buffer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, cast

from dvc_smb.smb2 import status
from dvc_smb.smb2.credits import Credits
from dvc_smb.smb2.errors import Disconnected, NoAnswer, ProtocolError, SMBError
from dvc_smb.smb2.header import ANSWER, ASYNC, HEADER, MARK, RELATED, SIGNED
from dvc_smb.smb2.inbox import LARGEST_FRAME, Inbox
from dvc_smb.smb2.login import Session
from dvc_smb.smb2.messages import CREDIT_SIZE, HEADER_SIZE, OPLOCK_BREAK, Request, echo
from dvc_smb.smb2.security import TRANSFORM_SIZE
from dvc_smb.smb2.watch import Watch, unsent

#: Never more in one request, whatever a server offers: larger ones are slower and cost memory.
LARGEST_PAYLOAD = 4 << 20

_LARGEST_COST = LARGEST_FRAME // CREDIT_SIZE
_CREDITS_WANTED = 1024
_CREDITS_BESIDE = 8  # of a compound, beside those of its payload
_WRITE_HIGH = 4 << 20
_UNSOLICITED_ID = 0xFFFFFFFFFFFFFFFF
_UNSOLICITED_MOST = 100
_SEND_GRACE = 2.0  # seconds that a connection being closed waits for what is under way
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
        self._credits = Credits(session.credits, session.peer, self._ask_for_credits, self._break)
        self._pending: dict[int, _Pending] = {}
        self._outbox: list[bytes | bytearray] = []
        self._inbox = Inbox(self._take, session.peer)
        self._watch = Watch(timeout, self._life, lambda: bool(self._pending), self._silent)
        self._answered = 0
        self._received = 0
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
        return self._credits.spent + self._credits.waiting

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
        return min(limit, LARGEST_PAYLOAD, max(1, self._credits.most - _CREDITS_BESIDE) * CREDIT_SIZE)

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
        if self.broken:
            raise self.broken.again()
        if cost > _LARGEST_COST:
            raise ValueError(f"a compound that costs {cost} credits is too large: send its requests one by one")
        if not self._credits.pay(cost):
            await self._credits.wait(cost)
            if self.broken:
                raise self.broken.again()
        return self._transmit(requests)

    async def close(self) -> None:
        """Let what is under way end, for a moment, and close the socket."""
        if self._pending and not self.broken:
            await asyncio.wait([entry.future for entry in self._pending.values()], timeout=_SEND_GRACE)
        self._break(Disconnected(f"the connection to {self.peer} is closed"))
        await self._closed

    # Sending

    def _ask_for_credits(self) -> None:
        self._transmit([echo()])

    def _transmit(self, requests: Sequence[Request]) -> list[asyncio.Future[Reply]]:
        count = len(requests)
        size = 4
        for _, _, body, data in requests:
            size += (4 - size) % 8  # each message of a compound starts at a multiple of 8
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
                after += (4 - after) % 8
                following = after - at
            else:
                after = size
                following = 0
                lacking = _CREDITS_WANTED - self._credits.free - self._credits.spent
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
        self._watch.start()
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
        self._credits.paused = True

    def resume_writing(self) -> None:
        self._credits.paused = False
        self._credits.serve()

    def connection_lost(self, exc: Exception | None) -> None:
        why = f" ({exc})" if exc else ""
        self._break(Disconnected(f"the connection to {self.peer} is lost{why}"))
        if not self._closed.done():
            self._closed.set_result(None)

    def eof_received(self) -> bool:
        return False

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._inbox.room()

    def buffer_updated(self, nbytes: int) -> None:
        if self.broken:
            return
        self._received += nbytes
        try:
            self._inbox.written(nbytes)
        except SMBError as error:
            self._break(error)
        else:
            if self._credits.waiting:
                self._credits.serve()

    # Receiving

    def _take(self, frame: memoryview) -> None:
        """Hand the answers of one frame to who waits for them."""
        if self._cipher:
            frame = self._cipher.open(frame)
        rest = frame
        while True:
            if len(rest) < HEADER_SIZE:
                raise ProtocolError(f"{self.peer} sent an answer that is cut short")
            mark, size, _, state, command, granted, flags, following, message_id, *_ = HEADER.unpack_from(rest)
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
        self._credits.settled()

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
            # On a later part of a compound it may only say that the first part was refused: so smbd answers an account
            # that may not enter the shared folder.
            if state in status.SESSION_GONE and not flags & RELATED:
                raise Disconnected(f"{self.peer} has ended the session ({status.name(state)})")
            del self._pending[message_id]
        self._answered += 1
        self._credits.settle(granted, pending.charge)
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
        for entry in pending.values():
            if not entry.future.done():
                entry.future.set_exception(error.again())
                entry.future.exception()  # nobody need await it
        self._credits.fail(error)
        self._watch.stop()
        if self._transport:
            self._transport.abort()

    def _silent(self) -> None:
        self._break(NoAnswer(f"{self.peer} has not answered for {self._timeout:g} seconds"))

    def _life(self) -> tuple[int, int, int]:
        """What changes as long as answers, or a good part of a large one, arrive, or a large request is leaving."""
        return self._answered, self._received >> 12, unsent(self._transport) if self._transport else 0
