"""Several processes work on one remote at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest
from smb_servers.fixtures import Place
from smb_servers.objects import make_objects, moving, objects, others, watched, wrong

SIZES = [*range(1, 30_000, 150), 3_000_000, 17_000_000]


@pytest.mark.parametrize("seed", [1, 2])
def test_two_processes_push_the_same_objects(seed: int, place: Place, tmp_path: Path) -> None:
    names = set(make_objects(tmp_path, SIZES, seed))
    with watched(place.path) as seen_wrong:
        clients = [moving("push", tmp_path, place.url, place.server.password) for _ in range(2)]
        outputs = [client.communicate(timeout=120)[0] for client in clients]
    assert [client.returncode for client in clients] == [0, 0], "\n".join(outputs)
    assert seen_wrong == []
    assert wrong(place.path) == []
    assert set(objects(place.path)) == names
    assert others(place.path) == []


def test_a_pull_beside_a_push_gets_only_whole_objects(place: Place, tmp_path: Path) -> None:
    names = set(make_objects(tmp_path / "cache", SIZES, 3))
    push = moving("push", tmp_path / "cache", place.url, place.server.password)
    pulls = 0
    while push.poll() is None or pulls == 0:
        pull = moving("pull", tmp_path / f"clone{pulls}", place.url, place.server.password)
        output, _ = pull.communicate(timeout=60)
        assert pull.returncode == 0 or "No such file" in output, output
        assert wrong(tmp_path / f"clone{pulls}") == []
        assert set(objects(tmp_path / f"clone{pulls}")) <= names
        pulls += 1
    assert push.communicate(timeout=60) and push.returncode == 0
    assert set(objects(place.path)) == names
