"""Many requests over one connection to a real smbd: every kind of signing and encryption, and few credits."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from dvc_smb.options import Options
from dvc_smb.smb2 import messages, status
from dvc_smb.smb2.connection import Connection, Reply
from dvc_smb.smb2.errors import Disconnected, NoAnswer, ProtocolError
from dvc_smb.smb2.login import Login, Session
from dvc_smb.smb2.messages import RELATED_FILE, Request
from smb_servers.fixtures import Place
from smb_servers.proxy import Proxy
from smb_servers.smbd import Share, Smbd

T = TypeVar("T")

MEGABYTE = 1 << 20


def options(server: Smbd, **others: object) -> Options:
    values = {"host": server.host, "port": server.port, "user": server.user, "password": server.password, **others}
    return Options(**values)  # type: ignore[arg-type]


def talk(session: Session, work: Callable[[Connection], Awaitable[T]], timeout: float = 10.0) -> T:
    """Run ``work`` with a connection over ``session``; whatever happens, within a minute."""

    async def run() -> T:
        async with asyncio.timeout(60):
            connection = await Connection.open(session, timeout)
            try:
                return await work(connection)
            finally:
                await connection.close()

    return asyncio.run(run())


async def ask(connection: Connection, *requests: Request) -> list[Reply]:
    return [await future for future in await connection.send(requests)]


async def store(connection: Connection, name: str, content: bytes) -> None:
    """Write a file as small writes as the connection allows, all under way at once."""
    access = messages.WRITE_DATA
    (reply,) = await ask(connection, messages.create(name, access, messages.OVERWRITE_OR_CREATE))
    assert reply.status == status.SUCCESS
    file = messages.parse_create(reply.message).file_id
    step = min(MEGABYTE, connection.max_write)
    parts = [(offset, content[offset : offset + step]) for offset in range(0, len(content), step)]
    replies = await asyncio.gather(*(ask(connection, messages.write(file, *part)) for part in parts))
    assert [messages.parse_write(reply.message) for (reply,) in replies] == [len(part) for _, part in parts]
    await ask(connection, messages.close(file))


async def load(connection: Connection, name: str) -> bytes:
    """Read a file, all parts of it under way at once."""
    (reply,) = await ask(connection, messages.create(name, messages.READ_DATA))
    opened = messages.parse_create(reply.message)
    step = min(MEGABYTE, connection.max_read)
    ranges = [(offset, min(step, opened.size - offset)) for offset in range(0, opened.size, step)]
    replies = await asyncio.gather(*(ask(connection, messages.read(opened.file_id, *part)) for part in ranges))
    await ask(connection, messages.close(opened.file_id))
    return b"".join(messages.parse_read(reply.message) for (reply,) in replies)


async def load_small(connection: Connection, name: str) -> bytes:
    """Read a file of up to 64 kB in one round trip."""
    opened, got, _ = await ask(
        connection,
        messages.create(name, messages.READ_DATA),
        messages.read(RELATED_FILE, 0, 65536),
        messages.close(RELATED_FILE),
    )
    assert (opened.status, got.status) == (status.SUCCESS, status.SUCCESS)
    return bytes(messages.parse_read(got.message))


DIALECTS = {
    "SMB 2.1, HMAC": {"server max protocol": "SMB2_10"},
    "SMB 3.0, CMAC": {"server max protocol": "SMB3_00"},
    "SMB 3.0.2, CMAC": {"server max protocol": "SMB3_02"},
    "SMB 3.1.1, GMAC": {"server smb3 signing algorithms": "aes-128-gmac"},
    "SMB 3.1.1, CMAC": {"server smb3 signing algorithms": "aes-128-cmac"},
    "SMB 3.1.1, HMAC": {"server smb3 signing algorithms": "hmac-sha256"},
}
CIPHERS = {
    "SMB 3.0, AES-128-CCM": {"server max protocol": "SMB3_00"},
    **{
        f"SMB 3.1.1, {name.upper()}": {"server smb3 encryption algorithms": name}
        for name in ("aes-128-gcm", "aes-128-ccm", "aes-256-gcm", "aes-256-ccm")
    },
}


@pytest.mark.parametrize("globals", [pytest.param(value, id=key) for key, value in DIALECTS.items()])
def test_every_signing_algorithm(new_smbd: Callable[..., Smbd], globals: dict[str, str]) -> None:  # noqa: A002
    server = new_smbd(globals={"server min protocol": "SMB2_10", **globals})
    session = Login(options(server), "sambashare").run()
    assert session.signer is not None
    check_there_and_back(server, session)


@pytest.mark.parametrize("globals", [pytest.param(value, id=key) for key, value in CIPHERS.items()])
def test_every_cipher(new_smbd: Callable[..., Smbd], globals: dict[str, str]) -> None:  # noqa: A002
    server = new_smbd(globals={"server min protocol": "SMB2_10", **globals})
    session = Login(options(server, encrypt=True), "sambashare").run()
    assert session.cipher is not None
    check_there_and_back(server, session)


def test_unsigned_when_the_user_asks_and_the_server_agrees(new_smbd: Callable[..., Smbd]) -> None:
    server = new_smbd(globals={"server signing": "auto"})
    session = Login(options(server, sign=False), "sambashare").run()
    assert (session.signer, session.cipher) == (None, None)
    check_there_and_back(server, session)


def check_there_and_back(server: Smbd, session: Session) -> None:
    content = os.urandom(2 * MEGABYTE + 12345)

    async def work(connection: Connection) -> bytes:
        await store(connection, "file", content)
        await store(connection, "small", b"few bytes")
        assert await load_small(connection, "small") == b"few bytes"
        return await load(connection, "file")

    assert talk(session, work) == content
    assert (server.path() / "file").read_bytes() == content


def test_share_that_demands_encryption_gets_it(smbd: Smbd) -> None:
    session = Login(options(smbd), "encrypted").run()
    assert session.cipher is not None
    (smbd.path("encrypted") / "secret").write_bytes(b"content")
    assert talk(session, lambda connection: load_small(connection, "secret")) == b"content"


@pytest.mark.parametrize("credits", [64, 32])
def test_128_operations_share_few_credits(new_smbd: Callable[..., Smbd], credits: int) -> None:  # noqa: A002
    server = new_smbd(globals={"smb2 max credits": str(credits)})
    contents = {f"f{number}": os.urandom(number % 3000) for number in range(400)}
    for name, content in contents.items():
        (server.path() / name).write_bytes(content)
    large = os.urandom(5 * MEGABYTE)
    (server.path() / "large").write_bytes(large)

    async def work(connection: Connection) -> dict[str, bytes]:
        async def one(name: str) -> tuple[str, bytes]:
            async with places:
                return name, await (load_small if contents[name] else load)(connection, name)

        places = asyncio.Semaphore(128)
        tasks = [asyncio.ensure_future(one(name)) for name in contents]
        streams = [asyncio.ensure_future(load(connection, "large")) for _ in range(3)]
        assert all(loaded == large for loaded in await asyncio.gather(*streams))
        assert connection.max_read <= credits * 65536
        return dict(await asyncio.gather(*tasks))

    assert talk(Login(options(server), "sambashare").run(), work) == contents


def test_waiting_for_credits_is_first_come_first_served(new_smbd: Callable[..., Smbd]) -> None:
    server = new_smbd(globals={"smb2 max credits": "32"})

    async def work(connection: Connection) -> list[int]:
        done: list[int] = []

        async def one(number: int) -> None:
            # Large and small ones mixed: a large one is not starved by the small ones behind it.
            large = [messages.create("missing", messages.READ_DATA), *[messages.read(RELATED_FILE, 0, 65536)] * 20]
            await connection.send(large if number % 10 == 0 else [messages.echo()])
            done.append(number)

        await asyncio.gather(*(one(number) for number in range(100)))
        return done

    assert talk(Login(options(server), "sambashare").run(), work) == list(range(100))


def test_cancelled_waiters_give_their_credits_back(new_smbd: Callable[..., Smbd]) -> None:
    server = new_smbd(globals={"smb2 max credits": "32"})
    (server.path() / "small").write_bytes(b"content")

    async def work(connection: Connection) -> int:
        async def one() -> bytes:
            return await load_small(connection, "small")

        for round_ in range(30):
            tasks = [asyncio.ensure_future(one()) for _ in range(60)]
            for _ in range(round_ % 4):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(result == b"content" for result in results[1::2])
        (echo,) = await connection.send([messages.echo()])
        await echo
        return connection.load

    assert talk(Login(options(server), "sambashare").run(), work) == 0


def test_request_no_credits_can_ever_pay_is_refused_and_the_rest_goes_on(new_smbd: Callable[..., Smbd]) -> None:
    server = new_smbd(globals={"smb2 max credits": "16"})
    (server.path() / "small").write_bytes(b"content")

    async def work(connection: Connection) -> None:
        small = [asyncio.ensure_future(load_small(connection, "small")) for _ in range(50)]
        with pytest.raises(ProtocolError, match=r"grants \d+ credits, but one request needs 64.*smb2 max credits"):
            await ask(connection, messages.read(RELATED_FILE, 0, 4 * MEGABYTE))
        assert await asyncio.gather(*small) == [b"content"] * 50
        assert connection.max_read < MEGABYTE

    talk(Login(options(server), "sambashare").run(), work)


def test_compound_with_more_answers_than_may_come_at_once_is_refused(smbd: Smbd) -> None:
    async def work(connection: Connection) -> None:
        with pytest.raises(ValueError, match="too large"):
            await connection.send([messages.read(RELATED_FILE, 0, 4 * MEGABYTE)] * 5)

    talk(Login(options(smbd), "sambashare").run(), work)


def test_failed_open_fails_what_relates_to_it(place: Place) -> None:
    async def work(connection: Connection) -> list[int]:
        requests = [messages.create(f"{place.name}/missing", messages.READ_DATA), messages.close(RELATED_FILE)]
        return [reply.status for reply in await ask(connection, *requests)]

    first, second = talk(Login(options(place.server), "sambashare").run(), work)
    assert first == status.OBJECT_NAME_NOT_FOUND
    assert second != status.SUCCESS


def test_listing_and_space(place: Place) -> None:
    expected = {f"{'name' * 20}{number}": number for number in range(500)}
    for name, size in expected.items():
        (place.path / name).write_bytes(bytes(size))

    async def work(connection: Connection) -> dict[str, int]:
        (reply,) = await ask(connection, messages.create(place.name, messages.LIST_DIRECTORY, options=1))
        folder = messages.parse_create(reply.message)
        assert folder.is_directory
        found: dict[str, int] = {}
        while True:
            (reply,) = await ask(connection, messages.listing(folder.file_id, 16384))
            if reply.status == status.NO_MORE_FILES:
                break
            found |= {entry.name: entry.size for entry in messages.parse_listing(reply.message)}
        (reply,) = await ask(connection, messages.space(folder.file_id))
        disk = os.statvfs(place.path)
        total, free = messages.parse_space(reply.message)
        assert total == disk.f_blocks * disk.f_frsize
        assert abs(free - disk.f_bavail * disk.f_frsize) < 1 << 30
        return found

    assert talk(Login(options(place.server), "sambashare").run(), work) == expected


@pytest.mark.parametrize("encrypt", [None, True], ids=["signed", "encrypted"])
def test_altered_byte_of_an_answer_is_noticed(
    place: Place, new_proxy: Callable[..., Proxy], encrypt: bool | None
) -> None:
    (place.path / "file").write_bytes(os.urandom(300_000))
    # Of an ECHO every byte after the frame's length; of a READ its data, behind an interim answer that nobody signs.
    for after, reads in ((4, False), (10, False), (52, False), (69, False), (5_000, True), (250_000, True)):
        proxy = new_proxy(place.server.port)
        session = Login(options(place.server, port=proxy.port, encrypt=encrypt), "sambashare").run()

        async def work(connection: Connection, proxy: Proxy = proxy, after: int = after, reads: bool = reads) -> None:
            (reply,) = await ask(connection, messages.create(f"{place.name}/file", messages.READ_DATA))
            file = messages.parse_create(reply.message).file_id
            proxy.flip("to_client", after)
            with pytest.raises(ProtocolError):
                await ask(connection, messages.read(file, 0, 300_000) if reads else messages.echo())
            assert connection.broken

        talk(session, work)


def test_lost_connection_fails_all_that_waits(place: Place, new_proxy: Callable[..., Proxy]) -> None:
    proxy = new_proxy(place.server.port)
    session = Login(options(place.server, port=proxy.port), "sambashare").run()

    async def work(connection: Connection) -> None:
        await ask(connection, messages.echo())
        proxy.black_hole()
        tasks = [asyncio.ensure_future(ask(connection, messages.echo())) for _ in range(3000)]
        await asyncio.sleep(0.05)
        proxy.cut()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {Disconnected}
        with pytest.raises(Disconnected):
            await connection.send([messages.echo()])

    talk(session, work)


def test_silent_server_is_given_up_after_the_timeout(place: Place, new_proxy: Callable[..., Proxy]) -> None:
    proxy = new_proxy(place.server.port)
    session = Login(options(place.server, port=proxy.port), "sambashare").run()

    async def work(connection: Connection) -> None:
        await ask(connection, messages.echo())
        await asyncio.sleep(1.5)  # with nothing to answer, silence is fine
        await ask(connection, messages.echo())
        proxy.black_hole()
        with pytest.raises(NoAnswer, match="has not answered for 1 seconds"):
            await ask(connection, messages.echo())

    talk(session, work, timeout=1.0)


def test_slow_link_with_much_under_way_is_not_silence(new_smbd: Callable[..., Smbd]) -> None:
    """Each answer takes longer than the timeout to arrive whole."""
    server = new_smbd(shares={"sambashare": Share()})
    content = os.urandom(3 * MEGABYTE)
    (server.path() / "file").write_bytes(content)
    digest = hashlib.md5(content).hexdigest()

    async def work() -> None:
        async def throttle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: int) -> None:
            while data := await reader.read(rate // 20):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(len(data) / rate)
            writer.close()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            out_reader, out_writer = await asyncio.open_connection(server.host, server.port)
            await asyncio.gather(
                throttle(reader, out_writer, 1_500_000), throttle(out_reader, writer, 1_500_000), return_exceptions=True
            )

        # What the relay's own system takes in advance would look like a server that is silent.
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
        listener.bind(("127.0.0.1", 0))
        relay = await asyncio.start_server(accept, sock=listener)
        port = listener.getsockname()[1]
        login = Login(options(server, port=port), "sambashare")
        connection = await Connection.open(await asyncio.to_thread(login.run), 0.4)
        loaded = await load(connection, "file")
        assert hashlib.md5(loaded).hexdigest() == digest
        await store(connection, "copy", loaded)
        await connection.close()
        relay.close()

    asyncio.run(asyncio.wait_for(work(), 60))
    assert (server.path() / "copy").read_bytes() == content
