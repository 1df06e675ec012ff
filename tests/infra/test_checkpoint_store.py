"""Checkpoints in a share: a folder and a real Samba server."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.repository.checkpoint_copies import CheckpointCopies
from infra.repository.checkpoint_store import CheckpointStore, open_store
from infra.repository.share import Origin, Share
from smb_servers.smbd import Smbd

KEY, OTHER = "0123456789abcdef", "fedcba9876543210"
Make = Callable[[], tuple[CheckpointStore, Path]]


@pytest.fixture(params=["directory", "smb"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[CheckpointStore, Path]]:
    """A store, and the folder of this machine in which its files lie."""
    if request.param == "directory":
        store = open_store(_share(tmp_path, {"url": str(tmp_path / "share")}))
        assert store is not None
        yield store, tmp_path / "share" / "checkpoints"
        return
    if os.geteuid() != 0 or not shutil.which("smbd"):
        pytest.skip("a Samba server needs root and smbd")
    with Smbd(tmp_path / "samba") as smbd:
        address = f"smb://127.0.0.1:{smbd.port}/sambashare/dvc"
        login = {"DVC_SMB_USER": "alice", "DVC_SMB_PASSWORD": smbd.password}
        store = open_store(_share(tmp_path, {"url": address, "user": "alice"}, login))
        assert store is not None
        yield store, smbd.path() / "dvc" / "checkpoints"


def _share(folder: Path, settings: dict[str, str], environment: dict[str, str] | None = None) -> Share:
    return Share(folder, folder, None, Origin.SITE, "", settings=settings, environment=environment or {})


def checkpoint(folder: Path, epochs: int, content: bytes = b"weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"epoch-{epochs:05d}.ckpt"
    path.write_bytes(content)
    return path


def test_the_furthest_is_kept_and_comes_back(shared: tuple[CheckpointStore, Path], tmp_path: Path) -> None:
    store, files = shared
    assert store.keys() == set()
    assert store.fetch(KEY, tmp_path / "none") is None
    store.put(KEY, checkpoint(tmp_path / "here", 2, b"two"))
    store.put(KEY, checkpoint(tmp_path / "here", 3, b"three"))
    store.put(OTHER, checkpoint(tmp_path / "other", 1))
    assert store.keys() == {KEY, OTHER}
    assert [path.name for path in (files / KEY).iterdir()] == ["epoch-00003.ckpt"]
    assert store.fetch(KEY, tmp_path / "there") == 3
    assert (tmp_path / "there" / "epoch-00003.ckpt").read_bytes() == b"three"
    assert store.fetch(KEY, tmp_path / "there") is None
    checkpoint(tmp_path / "further", 4)
    assert store.fetch(KEY, tmp_path / "further") is None


def test_a_finished_training_leaves_nothing(shared: tuple[CheckpointStore, Path], tmp_path: Path) -> None:
    store, files = shared
    store.put(KEY, checkpoint(tmp_path / "here", 2))
    store.put(OTHER, checkpoint(tmp_path / "here", 2))
    store.clear(KEY)
    store.clear(KEY)
    assert [path.name for path in files.iterdir()] == [OTHER]


def test_the_forgotten_are_removed(shared: tuple[CheckpointStore, Path], tmp_path: Path) -> None:
    store, files = shared
    for key in (KEY, OTHER):
        store.put(key, checkpoint(tmp_path / "here", 2))
    long_ago = time.time() - 15 * 86400
    os.utime(files / KEY / "epoch-00002.ckpt", (long_ago, long_ago))
    store.prune()
    assert store.keys() == {OTHER}


def test_copies_follow_the_training_and_the_last_one_is_in_time(
    shared: tuple[CheckpointStore, Path], tmp_path: Path
) -> None:
    store, files = shared
    trainings = tmp_path / "training"
    said: list[str] = []
    with CheckpointCopies(store, trainings, said.append, every_s=60) as copies:
        checkpoint(trainings / KEY, 1)
        copies.epoch()
        deadline = time.monotonic() + 20
        while copies.sent != {KEY: 1} and time.monotonic() < deadline:
            time.sleep(0.02)
        checkpoint(trainings / KEY, 2)
        copies.epoch()  # within the pause: the end of the block, as after a SIGTERM, does not wait for that
    assert [path.name for path in (files / KEY).iterdir()] == ["epoch-00002.ckpt"]
    assert said == []


def test_the_end_of_a_training_clears_the_share(shared: tuple[CheckpointStore, Path], tmp_path: Path) -> None:
    store, _ = shared
    store.put(KEY, checkpoint(tmp_path / "earlier", 5))
    with CheckpointCopies(store, tmp_path / "training", pytest.fail) as copies:
        assert copies.kept() == {KEY}
        assert copies.fetch(KEY) == 5
        checkpoint(tmp_path / "training" / KEY, 6)
        copies.epoch()
        copies.finished()
    assert store.keys() == set()


def test_a_share_that_fails_is_said_once_and_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "share").write_text("a file where the share's folder should be")
    store = open_store(_share(tmp_path, {"url": str(tmp_path / "share")}))
    assert store is not None
    said: list[str] = []
    with CheckpointCopies(store, tmp_path / "training", said.append, every_s=0.01) as copies:
        for epochs in (1, 2, 3):
            checkpoint(tmp_path / "training" / KEY, epochs)
            copies.epoch()
            time.sleep(0.05)
    assert len(said) == 1
    assert "the training goes on without" in said[0]


def test_other_remotes_keep_no_checkpoints(tmp_path: Path) -> None:
    assert open_store(_share(tmp_path, {"url": "s3://bucket/dvc"})) is None
