"""A server that is broken or means harm: it can make an operation fail, and nothing else.

The peers here speak the protocol themselves, over real sockets, so that they can also break it at any point.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dvc_smb.options import Options
from dvc_smb.smb2 import messages, status
from dvc_smb.smb2.connection import Connection, Reply
from dvc_smb.smb2.errors import Disconnected, NoAnswer, ProtocolError, SMBError
from dvc_smb.smb2.header import ANSWER, ASYNC, HEADER, MARK, SIGNED
from dvc_smb.smb2.login import Login, Session
from dvc_smb.smb2.messages import CREATE, ECHO, OPLOCK_BREAK, READ
from dvc_smb.smb2.pool import Pool
from dvc_smb.smb2.security import AES_128_GCM, AES_GMAC, Cipher, Signer
from smb_servers.smbd import Smbd

KEY = bytes(range(16))
SESSION_ID = 4711
ECHOED = b"\4\0\0\0"
TIMEOUT = 1.0


class Peer:
    """The server's end of a connection: reads requests, sends whatever it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, signed: bool) -> None:
        self.reader = reader
        self.writer = writer
        self.signer = Signer(AES_GMAC, KEY) if signed else None

    async def requests(self) -> list[int]:
        """Return the message ids in the next frame."""
        frame = await self.reader.readexactly(int.from_bytes(await self.reader.readexactly(4), "big"))
        ids, at = [], 0
        while True:
            fields = HEADER.unpack_from(frame, at)
            ids.append(fields[8])
            if not fields[7]:
                return ids
            at += fields[7]

    def answer(
        self,
        message_id: int,
        body: bytes = ECHOED,
        *,
        command: int = ECHO,
        state: int = 0,
        credits: int = 1,  # noqa: A002
        flags: int = ANSWER,
        following: bool = False,
        signed: bool = True,
    ) -> bytes:
        """Return one message."""
        body += bytes(-len(body) % 8) if following else b""
        if self.signer and signed:
            flags |= SIGNED
        after = 64 + len(body) if following else 0
        head = HEADER.pack(MARK, 64, 1, state, command, credits, flags, after, message_id, 0, 1, SESSION_ID, b"")
        message = bytearray(head + body)
        if self.signer and signed:
            message[48:64] = self.signer._signature(memoryview(message), message_id, True)
        return bytes(message)

    async def send(self, *messages_: bytes) -> None:
        """Send messages as one frame."""
        await self.send_raw(framed(b"".join(messages_)))

    async def send_raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@asynccontextmanager
async def connected(signed: bool = True, cipher: Cipher | None = None) -> AsyncIterator[tuple[Connection, Peer]]:
    """A connection that has logged in, with 100 credits, and its server."""
    ours, theirs = socket.socketpair()
    session = Session(
        socket=ours,
        peer="server:445",
        session_id=SESSION_ID,
        tree_id=1,
        message_id=5,
        credits=100,
        signer=Signer(AES_GMAC, KEY) if signed and not cipher else None,
        cipher=cipher,
        max_read=1 << 20,
        max_write=1 << 20,
        max_transact=1 << 20,
    )
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(sock=theirs)
        connection = await Connection.open(session, TIMEOUT)
        try:
            yield connection, Peer(reader, writer, signed)
        finally:
            connection._break(Disconnected("the test is over"))
            await connection.close()
            writer.transport.abort()


async def echo(connection: Connection) -> asyncio.Future[Reply]:
    return (await connection.send([messages.echo()]))[0]


def scenario(work: Callable[[Connection, Peer], Awaitable[None]], **kind: object) -> None:
    async def run() -> None:
        async with connected(**kind) as (connection, peer):  # type: ignore[arg-type]
            await work(connection, peer)

    asyncio.run(run())


def test_answers_in_any_order_in_any_pieces() -> None:
    async def work(connection: Connection, peer: Peer) -> None:
        futures = [await echo(connection) for _ in range(6)]
        ids = [(await peer.requests())[0] for _ in futures]
        assert ids == list(range(5, 11))
        stream = b"".join(framed(peer.answer(number)) for number in reversed(ids))
        await peer.send_raw(stream[:100])
        for number in range(100, 200):
            await peer.send_raw(stream[number : number + 1])
            await asyncio.sleep(0)
        await peer.send_raw(stream[200:])
        replies = await asyncio.gather(*futures)
        assert [HEADER.unpack_from(reply.message)[8] for reply in replies] == ids

    scenario(work)


def test_compound_answer_and_single_answers_to_a_compound() -> None:
    async def work(connection: Connection, peer: Peer) -> None:
        for together in (True, False):
            futures = await connection.send([messages.echo()] * 3)
            ids = await peer.requests()
            answers = [peer.answer(number, following=together and number != ids[-1]) for number in ids]
            if together:
                await peer.send(*answers)
            else:
                await peer.send_raw(b"".join(framed(answer) for answer in answers))
            assert [reply.status for reply in await asyncio.gather(*futures)] == [0, 0, 0]

    scenario(work)


def test_interim_answer_is_waited_through() -> None:
    async def work(connection: Connection, peer: Peer) -> None:
        future = await echo(connection)
        (number,) = await peer.requests()
        await peer.send(peer.answer(number, state=status.PENDING, flags=ANSWER | ASYNC, signed=False))
        other = await echo(connection)
        await peer.send(peer.answer((await peer.requests())[0]))
        await other
        assert not future.done()
        await peer.send(peer.answer(number, state=0xC0000034, flags=ANSWER | ASYNC, credits=0))
        assert (await future).status == 0xC0000034
        assert connection.load == 0

    scenario(work)


def test_breaking_of_an_oplock_is_passed_over() -> None:
    async def work(connection: Connection, peer: Peer) -> None:
        await peer.send(peer.answer(2**64 - 1, command=OPLOCK_BREAK, signed=False, credits=0))
        future = await echo(connection)
        await peer.send(peer.answer((await peer.requests())[0]))
        assert (await future).status == 0

    scenario(work)


BROKEN_ANSWERS: dict[str, Callable[[Peer, int], bytes]] = {
    "unsigned": lambda peer, number: framed(peer.answer(number, signed=False)),
    "unsigned error": lambda peer, number: framed(peer.answer(number, state=0xC0000034, signed=False)),
    "pending, not async, unsigned": lambda peer, number: framed(
        peer.answer(number, state=status.PENDING, signed=False)
    ),
    "wrong signature": lambda peer, number: framed(peer.answer(number)[:-1] + b"x"),
    "signed for another id": lambda peer, number: framed(
        peer.answer(number + 1)[:24] + number.to_bytes(8, "little") + peer.answer(number + 1)[32:]
    ),
    "never asked": lambda peer, number: framed(peer.answer(number + 1)),
    "an id of old": lambda peer, number: framed(peer.answer(1)),
    "other command": lambda peer, number: framed(peer.answer(number, command=READ)),
    "a request": lambda peer, number: framed(peer.answer(number, flags=0)),
    "answered twice": lambda peer, number: framed(peer.answer(number)) * 2,
    "put off twice": lambda peer, number: (
        framed(peer.answer(number, state=status.PENDING, flags=ANSWER | ASYNC, signed=False)) * 2
    ),
    "unsolicited, no oplock": lambda peer, number: framed(peer.answer(2**64 - 1)),
    "endless oplocks": lambda peer, number: framed(peer.answer(2**64 - 1, command=OPLOCK_BREAK, credits=0)) * 1000,
    "encrypted": lambda peer, number: framed(b"\xfdSMB" + bytes(200)),
    "compressed": lambda peer, number: framed(b"\xfcSMB" + bytes(200)),
    "SMB 1": lambda peer, number: framed(b"\xffSMB" + bytes(200)),
    "empty": lambda peer, number: framed(b""),
    "short": lambda peer, number: framed(peer.answer(number)[:63]),
    "keep-alive of NetBIOS": lambda peer, number: b"\x85\0\0\0",
    "4 GB announced": lambda peer, number: b"\xff\xff\xff\xff",
    "more than anything asked for": lambda peer, number: (20 << 20).to_bytes(4, "big"),
    "next is itself": lambda peer, number: framed(with_next(peer.answer(number), 8)),
    "next is odd": lambda peer, number: framed(with_next(peer.answer(number), 67)),
    "next is beyond": lambda peer, number: framed(with_next(peer.answer(number), 1 << 20)),
    "next is huge": lambda peer, number: framed(with_next(peer.answer(number), 0xFFFFFFF8)),
    "next is nothing": lambda peer, number: framed(peer.answer(number, following=True)),
    "web server": lambda peer, number: b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


def with_next(message: bytes, following: int) -> bytes:
    return message[:20] + struct.pack("<I", following) + message[24:]


@pytest.mark.parametrize("make", [pytest.param(value, id=key) for key, value in BROKEN_ANSWERS.items()])
def test_broken_answer_ends_the_connection_and_all_that_waits(make: Callable[[Peer, int], bytes]) -> None:
    async def work(connection: Connection, peer: Peer) -> None:
        await asyncio.gather(*(echo(connection) for _ in range(98)))  # nearly all credits
        first = await echo(connection)
        waiting = [asyncio.ensure_future(connection.send([messages.echo()] * 3)) for _ in range(5)]
        for _ in range(98):
            await peer.requests()
        (number,) = await peer.requests()
        await peer.send_raw(make(peer, number))
        for future in waiting:
            with pytest.raises(ProtocolError):
                await future
        # Either that very answer was taken before the harm came, or it fails like all others.
        (outcome,) = await asyncio.gather(first, return_exceptions=True)
        assert isinstance(outcome, Reply | ProtocolError)
        assert isinstance(connection.broken, ProtocolError)
        with pytest.raises(ProtocolError):
            await connection.send([messages.echo()])

    scenario(work)


def test_unencrypted_answer_in_an_encrypted_session_is_refused() -> None:
    async def work(connection: Connection, peer: Peer) -> None:
        future = await echo(connection)
        await peer.reader.readexactly(4)
        await peer.send(peer.answer(5))  # rightly signed, but readable
        with pytest.raises(ProtocolError, match="unencrypted"):
            await future

    scenario(work, cipher=Cipher(AES_128_GCM, SESSION_ID, KEY, KEY))


def test_encrypted_answer_of_another_session_or_size_is_refused() -> None:
    sealed = b"".join(Cipher(AES_128_GCM, SESSION_ID, KEY, KEY).seal(bytearray(100)))
    other = b"".join(Cipher(AES_128_GCM, SESSION_ID + 1, KEY, KEY).seal(bytearray(100)))
    short = b"".join(Cipher(AES_128_GCM, SESSION_ID, KEY, KEY).seal(bytearray(0)))
    for frame in (sealed[:-1], sealed + b"x", other, short, sealed[:40], sealed[:60] + b"!" + sealed[61:]):

        async def work(connection: Connection, peer: Peer, frame: bytes = frame) -> None:
            future = await echo(connection)
            await peer.send(frame)
            with pytest.raises(ProtocolError):
                await future

        scenario(work, cipher=Cipher(AES_128_GCM, SESSION_ID, KEY, KEY))


@pytest.mark.parametrize("signed", [False, True])
def test_ended_session_is_a_lost_connection_and_may_be_tried_again(signed: bool) -> None:
    async def work(connection: Connection, peer: Peer) -> None:
        future = await echo(connection)
        await peer.send(peer.answer((await peer.requests())[0], state=0xC0000203, signed=signed))
        with pytest.raises(Disconnected, match="USER_SESSION_DELETED"):
            await future

    scenario(work)


def test_server_that_grants_nothing_more() -> None:
    async def work(connection: Connection, peer: Peer) -> None:
        futures = [await echo(connection) for _ in range(100)]
        late = asyncio.ensure_future(echo(connection))
        for _ in futures:
            await peer.send(peer.answer((await peer.requests())[0], credits=0))
        with pytest.raises(ProtocolError, match="no credits"):
            await late

    scenario(work)


def test_server_that_takes_requests_and_answers_by_drops_is_given_up() -> None:
    async def work(connection: Connection, peer: Peer) -> None:
        future = (await connection.send([messages.read(bytes(16), 0, 1 << 20)]))[0]
        await peer.requests()
        await peer.send_raw((1 << 20).to_bytes(4, "big"))
        started = time.monotonic()
        with contextlib.suppress(OSError):
            while not future.done():
                await peer.send_raw(b"\xfe")
                await asyncio.sleep(0.02)
        with pytest.raises(NoAnswer):
            await future
        assert time.monotonic() - started < 5 * TIMEOUT

    scenario(work)


def test_server_that_reads_nothing_is_given_up_and_takes_little_memory() -> None:
    async def work(connection: Connection, peer: Peer) -> None:
        peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
        data = bytes(1 << 20)
        tasks = [asyncio.ensure_future(connection.send([messages.write(bytes(16), 0, data)])) for _ in range(64)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        futures = [future for result in results if isinstance(result, list) for future in result]
        assert len(futures) <= 8  # megabytes
        assert {type(result) for result in results} == {list, NoAnswer}
        for future in futures:
            with pytest.raises(NoAnswer):
                await future

    scenario(work)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=300), cut=st.booleans(), framed_=st.booleans(), mark=st.sampled_from([b"", MARK]))
def test_garbage_never_does_more_than_break_the_connection(data: bytes, cut: bool, framed_: bool, mark: bytes) -> None:
    async def work(connection: Connection, peer: Peer) -> None:
        future = await echo(connection)
        await peer.requests()
        await peer.send_raw(framed(mark + data) if framed_ else data)
        if cut or not framed_:
            peer.writer.close()
        with pytest.raises(SMBError):
            await future

    scenario(work)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    signed=st.booleans(),
    edits=st.lists(st.tuples(st.integers(0, 199), st.integers(1, 255)), min_size=1, max_size=4),
    length=st.integers(-60, 60),
)
def test_altered_answer_is_never_taken_for_a_signed_one(
    signed: bool, edits: list[tuple[int, int]], length: int
) -> None:
    async def work(connection: Connection, peer: Peer) -> None:
        body = struct.pack("<HBBIII", 17, 80, 0, 56, 0, 0) + bytes(range(56))
        opening, reading = await connection.send(
            [messages.create("file", messages.READ_DATA), messages.read(messages.RELATED_FILE, 0, 56)]
        )
        first, second = await peer.requests()
        true = [
            peer.answer(first, bytes(88), command=CREATE, following=True),
            peer.answer(second, body, command=READ),
        ]
        altered = bytearray(b"".join(true))
        for at, change in edits:
            altered[at % len(altered)] ^= change
        altered = altered[:length] if length < 0 else altered + bytes(length)
        await peer.send(bytes(altered))
        await asyncio.sleep(0)
        peer.writer.write_eof()
        outcomes = await asyncio.gather(opening, reading, return_exceptions=True)
        for outcome, message in zip(outcomes, true, strict=True):
            if isinstance(outcome, Reply):
                unsigned = bytes(outcome.message)[:48] + message[48:64] + bytes(outcome.message)[64:]
                assert not signed or unsigned == message
                for parse in (messages.parse_create, messages.parse_read, messages.parse_listing):
                    with contextlib.suppress(ProtocolError):
                        parse(outcome.message)
            else:
                assert isinstance(outcome, SMBError)

    scenario(work, signed=signed)


# The login


class Meddler:
    """Stands between a client and a server and alters the server's answers during the login."""

    def __init__(self, target_port: int, meddle: Callable[[int, bytearray], bytes]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.target_port = target_port
        self.meddle = meddle
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> Meddler:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        self.thread.join(10)

    def run(self) -> None:
        with contextlib.suppress(OSError), self.listener.accept()[0] as client:
            client.settimeout(5)
            with socket.create_connection(("127.0.0.1", self.target_port), timeout=5) as server:
                for number in range(10):
                    server.sendall(receive_frame(client))
                    answer = self.meddle(number, bytearray(receive_frame(server)[4:]))
                    client.sendall(framed(answer))


def receive_frame(endpoint: socket.socket) -> bytes:
    head = receive_exactly(endpoint, 4)
    return head + receive_exactly(endpoint, int.from_bytes(head, "big"))


def receive_exactly(endpoint: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = endpoint.recv(size - len(data))
        if not more:
            raise ConnectionResetError
        data += more
    return data


def login_options(server: Smbd, port: int, **others: object) -> Options:
    values = {"host": server.host, "port": port, "user": server.user, "password": server.password, "timeout": 3.0}
    return Options(**{**values, **others})  # type: ignore[arg-type]


@pytest.mark.parametrize("auth", ["ntlm", "negotiate"])
@pytest.mark.parametrize("number", range(4), ids=["negotiate", "challenge", "authenticated", "tree"])
def test_login_whose_answers_were_altered_always_fails(smbd: Smbd, number: int, auth: str) -> None:
    """Every bit counts: the first answers enter the keys, the later ones are signed."""

    @settings(max_examples=12, deadline=None, derandomize=True)
    @given(at=st.integers(0, 400), change=st.integers(1, 255), grow=st.sampled_from([0, 0, 0, 1, 8, -1, -8, -70]))
    def altered(at: int, change: int, grow: int) -> None:
        def meddle(turn: int, answer: bytearray) -> bytes:
            if turn == number:
                answer[at % len(answer)] ^= change
                answer = answer[:grow] if grow < 0 else answer + bytes(grow)
            return bytes(answer)

        with Meddler(smbd.port, meddle) as meddler, pytest.raises(SMBError) as caught:
            Login(login_options(smbd, meddler.port, auth=auth), "sambashare").run()
        assert smbd.password not in str(caught.value)
        assert "\n" not in str(caught.value)

    altered()


def test_login_through_an_honest_relay_passes(smbd: Smbd) -> None:
    with Meddler(smbd.port, lambda turn, answer: bytes(answer)) as meddler:
        Login(login_options(smbd, meddler.port), "sambashare").run().socket.close()


def test_weakened_negotiation_is_noticed(smbd: Smbd) -> None:
    """A man in the middle who strikes out 3.1.1, or encryption, or signing."""
    strikes = {
        "dialect": lambda answer: answer[:68] + b"\x02\x03" + answer[70:],
        "capabilities": lambda answer: answer[:88] + bytes(4) + answer[92:],
        "signing": lambda answer: answer[:66] + b"\x01\x00" + answer[68:],
    }
    for strike in strikes.values():

        def meddle(turn: int, answer: bytearray, strike: Callable[[bytes], bytes] = strike) -> bytes:
            return strike(bytes(answer)) if turn == 0 else bytes(answer)

        with Meddler(smbd.port, meddle) as meddler, pytest.raises(SMBError):
            Login(login_options(smbd, meddler.port), "sambashare").run()


@contextlib.contextmanager
def speaking(talk: Callable[[socket.socket], None]):
    """A server that takes connections, says something and never listens to anybody."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                endpoint, _ = listener.accept()
                with endpoint, contextlib.suppress(OSError):
                    endpoint.settimeout(10)
                    talk(endpoint)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(15)


def endless(endpoint: socket.socket) -> None:
    while True:
        endpoint.sendall(b"\0\0\0\x40\xfeSMB" + os.urandom(60))


def drop_by_drop(endpoint: socket.socket) -> None:
    for byte in b"\0\1\0\0" + bytes(1 << 16):
        endpoint.sendall(bytes([byte]))
        time.sleep(0.05)


def pending_forever(endpoint: socket.socket) -> None:
    receive_frame(endpoint)
    answer = HEADER.pack(MARK, 64, 0, status.PENDING, 0, 1, ANSWER | ASYNC, 0, 0, 0, 0, 0, b"")
    while True:
        endpoint.sendall(framed(answer + bytes(8)))
        time.sleep(0.01)


TALKS: dict[str, Callable[[socket.socket], object]] = {
    "web server": lambda endpoint: endpoint.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "ssh": lambda endpoint: endpoint.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
    "hangs up": lambda endpoint: None,
    "4 GB announced": lambda endpoint: endpoint.sendall(b"\xff\xff\xff\xff" + bytes(1000)),
    "nothing": lambda endpoint: endpoint.recv(1) and time.sleep(2.5),
    "endless": endless,
    "drop by drop": drop_by_drop,
    "pending for ever": pending_forever,
}


@pytest.mark.parametrize("talk", [pytest.param(value, id=key) for key, value in TALKS.items()])
def test_login_at_something_else_ends_in_time_with_one_sentence(talk: Callable[[socket.socket], None]) -> None:
    async def work(port: int) -> None:
        pool = Pool(Options(host="127.0.0.1", port=port, user="alice", password="secret", timeout=1.5), "share")
        with pytest.raises(SMBError) as caught:
            await pool.pick()
        assert "127.0.0.1" in str(caught.value)
        assert "secret" not in str(caught.value)
        await pool.close()

    with speaking(talk) as port:
        started = time.monotonic()
        asyncio.run(work(port))
        assert time.monotonic() - started < 5


@settings(max_examples=60, deadline=None)
@given(answer=st.binary(max_size=300), kind=st.sampled_from(["raw", "framed", "header"]))
def test_login_at_a_server_that_answers_garbage(answer: bytes, kind: str) -> None:
    ours, theirs = socket.socketpair()
    header = HEADER.pack(MARK, 64, 0, 0, 0, 1, ANSWER, 0, 0, 0, 0, 0, b"")
    data = {"raw": answer, "framed": framed(answer), "header": framed(header + answer)}[kind]
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        login = Login(Options(host="127.0.0.1", port=9, user="alice", password="secret", timeout=2.0), "share")
        login._dialogue.start_clock(2.0)
        login._dialogue._socket = ours
        from dvc_smb.smb2.login import _Steps

        with pytest.raises(SMBError):
            _Steps(login._options, "share", login._dialogue).run()
