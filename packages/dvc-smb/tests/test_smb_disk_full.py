"""A share whose disk is full in the middle of a push: one sentence, no wrong object, and a push that goes on later."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dvc_smb.filesystem import SMB
from smb_servers.fixtures import Place
from smb_servers.objects import Mover, make_objects, move, objects, others, wrong
from smb_servers.smbd import Share, Smbd

DISK = 4 << 20


@pytest.mark.parametrize(
    ("disk", "sizes"),
    [
        pytest.param(Share(size_limit=DISK), [20_000] * 400, id="many-small"),
        pytest.param(Share(size_limit=DISK), [3_000_000, 18_000_000], id="one-large"),
        pytest.param(Share(size_limit=DISK, files_limit=100), [100] * 400, id="no-inodes"),
    ],
)
def test_a_push_to_a_full_disk(disk: Share, sizes: list[int], tmp_path: Path, new_smbd: Callable[..., Smbd]) -> None:
    server = new_smbd({"sambashare": disk})
    place = Place(server, "dvc", server.path() / "dvc")
    cache = tmp_path / "cache"
    names = set(make_objects(cache, sizes, 1))
    arrived, output = Mover("push", cache, place.url, password=server.password).finish()
    assert not arrived
    assert "full" in output or "space" in output, output
    assert server.password not in output
    assert wrong(place.path) == []
    assert len(objects(place.path)) < len(names)
    subprocess.run(["mount", "-o", "remount,size=64M,nr_inodes=10000", server.path()], check=True)
    assert move("push", cache, place.url, password=server.password)
    assert wrong(place.path) == []
    assert set(objects(place.path)) == names
    assert others(place.path) == []


@pytest.mark.parametrize("size", [6_000_000, 20_000_000])
def test_a_file_that_does_not_fit_says_so_and_gives_its_space_back(
    size: int, tmp_path: Path, new_smbd: Callable[..., Smbd]
) -> None:
    server = new_smbd({"sambashare": Share(size_limit=DISK)})
    client = SMB("127.0.0.1", port=server.port, user="alice", password=server.password, skip_instance_cache=True)
    (tmp_path / "model.bin").write_bytes(bytes(size))
    with pytest.raises(OSError, match=r"full|space") as caught:
        client.put_file(str(tmp_path / "model.bin"), "/sambashare/model.bin")
    assert caught.value.errno == errno.ENOSPC
    assert client.find("/sambashare") == []
    (tmp_path / "small.bin").write_bytes(bytes(DISK // 2))
    client.put_file(str(tmp_path / "small.bin"), "/sambashare/small.bin")
    assert (server.path() / "small.bin").stat().st_size == DISK // 2
