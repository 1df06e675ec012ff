"""Several processes work on one remote at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

from smb_servers.fixtures import Place
from smb_servers.objects import Mover, make_objects, objects, others, watched, wrong

SIZES = [*range(1, 30_000, 150), 3_000_000, 17_000_000]


@pytest.mark.parametrize("seed", [1, 2])
def test_two_processes_push_the_same_objects(seed: int, place: Place, tmp_path: Path) -> None:
    names = set(make_objects(tmp_path, SIZES, seed))
    with watched(place.path) as seen_wrong:
        clients = [Mover("push", tmp_path, place.url, password=place.server.password) for _ in range(2)]
        for client in clients:
            arrived, output = client.finish()
            assert arrived, output
    assert seen_wrong == []
    assert wrong(place.path) == []
    assert set(objects(place.path)) == names
    assert others(place.path) == []


def test_a_pull_beside_a_push_gets_only_whole_objects(place: Place, tmp_path: Path) -> None:
    names = set(make_objects(tmp_path / "cache", SIZES, 3))
    push = Mover("push", tmp_path / "cache", place.url, password=place.server.password)
    pulls = 0
    while push.process.is_alive() or pulls == 0:
        arrived, output = Mover("pull", tmp_path / f"clone{pulls}", place.url, password=place.server.password).finish()
        assert arrived, output
        assert wrong(tmp_path / f"clone{pulls}") == []
        assert set(objects(tmp_path / f"clone{pulls}")) <= names
        pulls += 1
    arrived, output = push.finish()
    assert arrived, output
    assert set(objects(place.path)) == names
