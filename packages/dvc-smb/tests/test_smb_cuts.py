"""Connections cut at hundreds of byte positions, servers and clients killed: no wrong object, ever, on either side."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dvc_smb.filesystem import SMB
from dvc_smb.smb2 import pool
from smb_servers.fixtures import Place
from smb_servers.objects import Mover, make_objects, move, objects, others, watched, wrong
from smb_servers.proxy import Proxy
from smb_servers.smbd import Smbd

# Many small files, so that a cut falls into every kind of message; some of several messages; one that all
# connections share.
SMALL_SIZES = [0, 1, *range(1000, 31000, 500)]
LARGE_SIZES = [300_000, 1_500_000, 2_500_000, 18_000_000]
# Sizes, the least and the most bytes between two cuts, how many cuts.
KINDS = {"small": (SMALL_SIZES, 500, 60_000, 60), "large": (LARGE_SIZES, 100_000, 6_000_000, 15)}
FILE_CUTS = 40


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon: the delays of a real client only cost time here."""
    monkeypatch.setattr(pool, "_FIRST_DELAY", 0.01)


def options(server: Smbd) -> dict[str, object]:
    """Return the login; with a timeout that ends a test, not a person's patience."""
    return {"password": server.password, "timeout": 10.0}


def through(proxy: Proxy, place: Place) -> str:
    """Return the URL of a place, reached through the proxy."""
    return place.url.replace(f":{place.server.port}/", f":{proxy.port}/")


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_push_leaves_whole_objects_and_is_repaired(
    kind: str, place: Place, tmp_path: Path, new_proxy: Callable[..., Proxy]
) -> None:
    sizes, low, high, cuts = KINDS[kind]
    names = set(make_objects(tmp_path, sizes, 1))
    proxy = new_proxy(place.server.port)
    proxy.cut_at_random(len(kind), low, high, cuts)
    with watched(place.path) as seen_wrong:
        while proxy.cuts < cuts:
            if move("push", tmp_path, through(proxy, place), **options(place.server)):
                assert set(objects(place.path)) == names
                shutil.rmtree(place.path / "files")
            assert wrong(place.path) == []
        proxy.cut_no_more()
        names |= set(make_objects(tmp_path, [100], 3))
        # As users do: a command is a process. It also cleans up after those before it.
        arrived, output = Mover("push", tmp_path, place.url, **options(place.server)).finish()
        assert arrived, output
    assert seen_wrong == []
    assert wrong(place.path) == []
    assert set(objects(place.path)) == names
    assert others(place.path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_pull_leaves_whole_objects_and_is_repaired(
    kind: str, place: Place, tmp_path: Path, new_proxy: Callable[..., Proxy]
) -> None:
    sizes, low, high, cuts = KINDS[kind]
    names = set(make_objects(place.path, sizes, 2))
    proxy = new_proxy(place.server.port)
    proxy.cut_at_random(len(kind), low, high, cuts)
    with watched(tmp_path) as seen_wrong:
        while proxy.cuts < cuts:
            if move("pull", tmp_path, through(proxy, place), **options(place.server)):
                assert set(objects(tmp_path)) == names
                shutil.rmtree(tmp_path / "files")
            assert wrong(tmp_path) == []
        proxy.cut_no_more()
        assert move("pull", tmp_path, through(proxy, place), **options(place.server))
    assert seen_wrong == []
    assert wrong(tmp_path) == []
    assert set(objects(tmp_path)) == names
    assert others(tmp_path) == []


@pytest.mark.parametrize("size", [20_000, 3_000_000])
def test_a_cut_upload_leaves_the_old_file_or_the_new_one(
    size: int, place: Place, tmp_path: Path, new_proxy: Callable[..., Proxy]
) -> None:
    generator = random.Random(size)
    versions = [generator.randbytes(size), generator.randbytes(size + 7)]
    proxy = new_proxy(place.server.port)
    client = SMB("127.0.0.1", port=proxy.port, user="alice", skip_instance_cache=True, **options(place.server))
    (place.path / "model.bin").write_bytes(versions[0])
    proxy.cut_at_random(size, size // 4, 2 * size, FILE_CUTS)
    number = 0
    while proxy.cuts < FILE_CUTS:
        number += 1
        (tmp_path / "model.bin").write_bytes(versions[number % 2])
        try:
            client.put_file(str(tmp_path / "model.bin"), f"{place.smb_path}/model.bin")
        except OSError:
            assert (place.path / "model.bin").read_bytes() in versions
        else:
            assert (place.path / "model.bin").read_bytes() == versions[number % 2]


@pytest.mark.parametrize("size", [20_000, 3_000_000])
def test_a_cut_download_leaves_nothing_or_the_whole_file(
    size: int, place: Place, tmp_path: Path, new_proxy: Callable[..., Proxy]
) -> None:
    content = random.Random(size).randbytes(size)
    proxy = new_proxy(place.server.port)
    client = SMB("127.0.0.1", port=proxy.port, user="alice", skip_instance_cache=True, **options(place.server))
    (place.path / "model.bin").write_bytes(content)
    proxy.cut_at_random(size, size // 4, 2 * size, FILE_CUTS)
    target = tmp_path / "model.bin"
    while proxy.cuts < FILE_CUTS:
        try:
            client.get_file(f"{place.smb_path}/model.bin", str(target))
        except OSError:
            assert list(tmp_path.iterdir()) == []
        else:
            assert target.read_bytes() == content
            target.unlink()


def test_a_second_pull_fetches_only_what_is_missing(
    place: Place, tmp_path: Path, new_proxy: Callable[..., Proxy]
) -> None:
    names = make_objects(place.path, [100_000] * 100, 5)
    proxy = new_proxy(place.server.port)
    proxy.cut_after(7_000_000)
    first = Mover("pull", tmp_path, through(proxy, place), **options(place.server))
    wait_for(lambda: proxy.cuts > 0)
    first.kill()
    have = len(objects(tmp_path))
    assert 0 < have < len(names)
    before = proxy.bytes_to_client
    assert move("pull", tmp_path, through(proxy, place), **options(place.server))
    assert set(objects(tmp_path)) == set(names)
    assert proxy.bytes_to_client - before < 100_000 * (len(names) - have) + 500_000


@pytest.mark.parametrize("action", ["push", "pull"])
@pytest.mark.parametrize("seed", range(2))
def test_a_killed_server_leaves_whole_objects(
    action: str, seed: int, tmp_path: Path, new_smbd: Callable[..., Smbd], new_proxy: Callable[..., Proxy]
) -> None:
    server = new_smbd()
    proxy = new_proxy(server.port)
    place = Place(server, "dvc", server.path() / "dvc")
    url = through(proxy, place)
    cache = tmp_path / "cache"
    source, target = (cache, place.path) if action == "push" else (place.path, cache)
    names = set(make_objects(source, SMALL_SIZES * 2 + LARGE_SIZES, seed))
    moment = random.Random(seed).randint(10_000, 20_000_000)
    with watched(target) as seen_wrong:
        client = Mover(action, cache, url, **options(server))
        wait_for(lambda: proxy.bytes_to_server + proxy.bytes_to_client > moment)
        server.kill()
        assert wrong(target) == []
        server.start()
        # It may have come back early enough for the client: that is for the client to know.
        arrived, _ = client.finish()
        if arrived:
            assert set(objects(target)) == names
        # One more to move: a push that has nothing to do does not look at the remote, and cleans nothing.
        names |= set(make_objects(source, [100], seed + 10))
        assert move(action, cache, url, **options(server))
    assert seen_wrong == []
    assert wrong(target) == []
    assert set(objects(target)) == names
    assert others(place.path) == []


@pytest.mark.parametrize("action", ["push", "pull"])
@pytest.mark.parametrize("seed", range(2))
def test_a_killed_client_leaves_whole_objects(
    action: str, seed: int, place: Place, tmp_path: Path, new_proxy: Callable[..., Proxy]
) -> None:
    proxy = new_proxy(place.server.port)
    url = through(proxy, place)
    source, target = (tmp_path, place.path) if action == "push" else (place.path, tmp_path)
    names = set(make_objects(source, SMALL_SIZES * 2 + LARGE_SIZES, seed))
    moment = random.Random(seed).randint(10_000, 20_000_000)
    with watched(target) as seen_wrong:
        client = Mover(action, tmp_path, url, **options(place.server))
        wait_for(lambda: proxy.bytes_to_server + proxy.bytes_to_client > moment)
        client.kill()
        assert wrong(target) == []
        assert move(action, tmp_path, url, **options(place.server))
    assert seen_wrong == []
    assert wrong(target) == []
    assert set(objects(target)) == names
    assert others(place.path) == []


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what the test waits for did not happen"
        time.sleep(0.002)
