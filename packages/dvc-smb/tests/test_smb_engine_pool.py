"""Connections that open when they are needed, share the load, are replaced when broken, and survive a fork."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from dvc_smb.options import Options
from dvc_smb.smb2 import messages
from dvc_smb.smb2.errors import Disconnected, LoginError, ShareNotFound, SMBError, Unreachable
from dvc_smb.smb2.messages import RELATED_FILE
from dvc_smb.smb2.pool import Pool
from smb_servers.proxy import Proxy
from smb_servers.smbd import Share, Smbd

T = TypeVar("T")


def pool_of(server: Smbd, share: str = "sambashare", **others: object) -> Pool:
    values = {"host": server.host, "port": server.port, "user": server.user, "password": server.password, **others}
    return Pool(Options(**values), share)  # type: ignore[arg-type]


def run(pool: Pool, work: Callable[[], Awaitable[T]]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(60):
            try:
                return await work()
            finally:
                await pool.close()

    return asyncio.run(bounded())


async def load(pool: Pool, name: str) -> bytes:
    """Read a small file."""
    connection = await pool.pick()
    opened, got, _ = [
        await future
        for future in await connection.send(
            [
                messages.create(name, messages.READ_DATA),
                messages.read(RELATED_FILE, 0, 65536),
                messages.close(RELATED_FILE),
            ]
        )
    ]
    assert not opened.status
    return bytes(messages.parse_read(got.message))


@pytest.fixture
def proxy(smbd: Smbd, new_proxy: Callable[..., Proxy]) -> Proxy:
    (smbd.path() / "pooled").write_bytes(b"content")
    return new_proxy(smbd.port)


def test_one_file_pays_for_one_login(smbd: Smbd, proxy: Proxy) -> None:
    pool = pool_of(smbd, port=proxy.port)

    async def work() -> None:
        assert await load(pool, "pooled") == b"content"
        await asyncio.sleep(0.3)

    run(pool, work)
    assert proxy.connections == 1


def test_all_who_wait_share_the_first_login(smbd: Smbd, proxy: Proxy) -> None:
    pool = pool_of(smbd, port=proxy.port, connections=1)

    async def work() -> list[bytes]:
        return await asyncio.gather(*(load(pool, "pooled") for _ in range(200)))

    assert run(pool, work) == [b"content"] * 200
    assert proxy.connections == 1


def test_load_opens_the_others_and_is_spread(smbd: Smbd, proxy: Proxy) -> None:
    pool = pool_of(smbd, port=proxy.port, connections=4)

    async def work() -> set[int]:
        used = set()

        async def one() -> None:
            used.add(id(await pool.pick()))
            await load(pool, "pooled")

        for _ in range(200):
            await asyncio.gather(*(one() for _ in range(50)))
            if len(used) == 4:
                break
        return used

    assert len(run(pool, work)) == 4
    assert proxy.connections == 4


def test_all_opens_all_and_close_leaves_none(smbd: Smbd, proxy: Proxy) -> None:
    pool = pool_of(smbd, port=proxy.port, connections=4)

    async def work() -> int:
        return len({id(connection) for connection in await pool.all()})

    threads = threading.active_count()
    assert run(pool, work) == 4
    assert run(pool, work) == 4  # another event loop, new connections
    assert proxy.connections == 8
    end = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() == threads


def test_server_that_allows_fewer_connections(new_smbd: Callable[..., Smbd]) -> None:
    server = new_smbd({"sambashare": Share(options={"max connections": "2"})})
    (server.path() / "pooled").write_bytes(b"content")
    pool = pool_of(server, connections=4, timeout=3)

    async def work() -> int:
        connections = await pool.all()
        assert await asyncio.gather(*(load(pool, "pooled") for _ in range(100))) == [b"content"] * 100
        return len(connections)

    assert run(pool, work) == 2


def test_broken_connections_are_replaced_and_work_goes_on(smbd: Smbd, proxy: Proxy) -> None:
    pool = pool_of(smbd, port=proxy.port, connections=3)

    async def work() -> None:
        async def many() -> None:
            for _ in range(60):
                assert await pool.retrying(lambda: load(pool, "pooled")) == b"content"
                await asyncio.sleep(0.001)

        tasks = [asyncio.ensure_future(many()) for _ in range(20)]
        for _ in range(5):
            await asyncio.sleep(0.15)
            proxy.cut()
        await asyncio.gather(*tasks)

    run(pool, work)


def test_restarted_server_is_waited_for(new_smbd: Callable[..., Smbd]) -> None:
    server = new_smbd()
    (server.path() / "pooled").write_bytes(b"content")
    pool = pool_of(server)

    async def work() -> bytes:
        await load(pool, "pooled")
        server.kill()
        restarting = asyncio.get_running_loop().run_in_executor(None, lambda: (time.sleep(0.8), server.start()))
        content = await pool.retrying(lambda: load(pool, "pooled"))
        await restarting
        return content

    assert run(pool, work) == b"content"


def test_server_that_never_was_there_is_not_waited_for() -> None:
    pool = Pool(Options(host="127.0.0.1", port=1, user="a", password="b"), "share")

    async def work() -> None:
        with pytest.raises(Unreachable):
            await pool.retrying(pool.pick)

    started = time.monotonic()
    run(pool, work)
    assert time.monotonic() - started < 5


def test_other_errors_are_not_repeated(smbd: Smbd) -> None:
    pool = pool_of(smbd)
    calls = []

    async def fail() -> None:
        calls.append(1)
        raise FileNotFoundError("gone")

    async def work() -> None:
        await pool.pick()
        with pytest.raises(FileNotFoundError):
            await pool.retrying(fail)

    run(pool, work)
    assert len(calls) == 1


def test_what_never_passes_is_given_up(smbd: Smbd) -> None:
    pool = pool_of(smbd, timeout=1.0)

    async def fail() -> None:
        raise Disconnected("always")

    async def work() -> None:
        await pool.pick()
        with pytest.raises(Disconnected, match="always"):
            await pool.retrying(fail)

    started = time.monotonic()
    run(pool, work)
    assert time.monotonic() - started < 10


def test_refused_login_is_tried_once(smbd: Smbd, proxy: Proxy) -> None:
    """Accounts are locked after a few wrong passwords."""
    pool = pool_of(smbd, port=proxy.port, password="wrong-secret")

    async def work() -> list[object]:
        first = await asyncio.gather(*(pool.retrying(pool.pick) for _ in range(64)), return_exceptions=True)
        second = await asyncio.gather(*(pool.all() for _ in range(8)), return_exceptions=True)
        return [*first, *second]

    results = run(pool, work)
    assert {type(result) for result in results} == {LoginError}
    assert len({id(result) for result in results}) > 1
    assert proxy.connections == 1


def test_missing_share_is_asked_for_once_by_all_who_wait(smbd: Smbd, proxy: Proxy) -> None:
    pool = pool_of(smbd, "nope", port=proxy.port)

    async def work() -> list[object]:
        return await asyncio.gather(*(pool.retrying(pool.pick) for _ in range(64)), return_exceptions=True)

    assert {type(result) for result in run(pool, work)} == {ShareNotFound}
    assert proxy.connections == 1


def test_cancelled_pick_does_not_disturb_the_others(smbd: Smbd, proxy: Proxy) -> None:
    pool = pool_of(smbd, port=proxy.port)

    async def work() -> bytes:
        tasks = [asyncio.ensure_future(load(pool, "pooled")) for _ in range(10)]
        await asyncio.sleep(0)
        for task in tasks[:9]:
            task.cancel()
        return await tasks[9]

    assert run(pool, work) == b"content"
    assert proxy.connections == 1


def test_two_event_loops_at_once(smbd: Smbd, proxy: Proxy) -> None:
    pool = pool_of(smbd, port=proxy.port)
    failures: list[BaseException] = []

    async def work() -> None:
        for _ in range(50):
            assert await load(pool, "pooled") == b"content"
        await pool.close()

    def in_thread() -> None:
        try:
            asyncio.run(asyncio.wait_for(work(), 30))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=in_thread) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert failures == []


def test_child_of_a_fork_opens_its_own_and_leaves_the_parents_alone(smbd: Smbd, proxy: Proxy) -> None:
    """As fsspec does it: an event loop in a thread, which does not exist in the child."""
    pool = pool_of(smbd, port=proxy.port)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(work: Awaitable[T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)  # type: ignore[arg-type]

    try:
        assert call(load(pool, "pooled")) == b"content"
        child = os.fork()
        if not child:
            status = 1
            try:
                status = 0 if run(pool, lambda: load(pool, "pooled")) == b"content" else 2
            finally:
                os._exit(status)
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            assert call(load(pool, "pooled")) == b"content"
        assert status == 0
        assert call(load(pool, "pooled")) == b"content"
        call(pool.close())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
    assert proxy.connections == 2


def test_errors_survive_being_sent_to_another_process() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(LoginError("the password is wrong")))
    assert (type(error), str(error)) == (LoginError, "the password is wrong")
    assert isinstance(error, SMBError)
    assert isinstance(error, PermissionError)
