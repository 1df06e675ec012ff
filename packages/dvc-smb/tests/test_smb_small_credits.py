"""A server that grants few credits: the client waits for them, however much it has to do at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from smb_servers.fixtures import Place
from smb_servers.objects import make_objects, move, objects, wrong
from smb_servers.smbd import Smbd

SIZES = [*range(100, 60_000, 200), 1_200_000, 9_000_000, 20_000_000]


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("credits_", [16, 64])
def test_128_files_in_flight(connections: int, credits_: int, tmp_path: Path, new_smbd: Callable[..., Smbd]) -> None:
    server = new_smbd(globals={"smb2 max credits": str(credits_)})
    place = Place(server, "dvc", server.path() / "dvc")
    names = set(make_objects(tmp_path / "cache", SIZES, credits_))
    options = {"password": server.password, "jobs": 128, "connections": connections}
    assert move("push", tmp_path / "cache", place.url, **options)
    assert set(objects(place.path)) == names
    assert wrong(place.path) == []
    assert move("pull", tmp_path / "clone", place.url, **options)
    assert set(objects(tmp_path / "clone")) == names
    assert wrong(tmp_path / "clone") == []
