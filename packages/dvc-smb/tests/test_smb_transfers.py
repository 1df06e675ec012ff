"""Files to a share and back: whole or not at all, verified, whatever their size and whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fsspec.asyn import sync
from fsspec.callbacks import Callback

import dvc_smb
from dvc_smb import names, temporaries
from dvc_smb.download import FIRST_READ
from dvc_smb.errors import AlteredObject
from dvc_smb.filesystem import SMB
from dvc_smb.smb2 import messages, status
from dvc_smb.streams import CHUNK, STRIPED
from dvc_smb.upload import SMALL, Upload
from smb_servers.fixtures import Place
from smb_servers.smbd import Share, Smbd

SIZES = sorted({0, 1, *(size + more for size in (FIRST_READ, SMALL, CHUNK, STRIPED) for more in (-1, 0, 1)), 5 << 20})

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(dvc_smb.__file__).parents[1])}


def connect(server: Smbd, **options: object) -> SMB:
    return SMB(
        server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        skip_instance_cache=True,
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture
def fs(place: Place) -> Iterator[SMB]:
    made = connect(place.server)
    yield made
    made.close()


def content(size: int) -> bytes:
    return os.urandom(1024) * (size // 1024) + os.urandom(size % 1024)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def object_path(root: str, data: bytes) -> str:
    md5 = hashlib.md5(data).hexdigest()
    return f"{root}/files/md5/{md5[:2]}/{md5[2:]}"


@pytest.mark.parametrize("size", SIZES)
def test_what_is_put_is_what_is_got(fs: SMB, place: Place, tmp_path: Path, size: int) -> None:
    data = content(size)
    (tmp_path / "source").write_bytes(data)
    up, down = Callback(), Callback()
    fs.put_file(str(tmp_path / "source"), f"{place.smb_path}/folder/file", callback=up)
    assert (place.path / "folder" / "file").read_bytes() == data
    fs.get_file(f"{place.smb_path}/folder/file", str(tmp_path / "target"), callback=down)
    assert (tmp_path / "target").read_bytes() == data
    assert (up.size, up.value, down.size, down.value) == (size, size, size, size)
    assert files_below(place.path) == ["folder/file"]
    assert names_in(tmp_path) == ["source", "target"]


def test_parts_of_a_file_beyond_4_gib(fs: SMB, place: Place) -> None:
    with (place.path / "sparse").open("wb") as file:
        file.truncate((5 << 30) + 7)
        file.seek((4 << 30) - 3)
        file.write(b"across")
        file.seek(5 << 30)
        file.write(b"the end")
    path = f"{place.smb_path}/sparse"
    assert fs.cat_file(path, start=(4 << 30) - 3, end=(4 << 30) + 3) == b"across"
    assert fs.cat_file(path, start=5 << 30) == b"the end"
    assert fs.cat_file(path, start=-3) == b"end"
    assert fs.cat_file(path, start=(5 << 30) - (3 << 20)) == bytes(3 << 20) + b"the end"
    assert fs.size(path) == (5 << 30) + 7


def test_writes_beyond_4_gib(fs: SMB, place: Place) -> None:
    path = f"{place.smb_path}/sparse"
    share, name = fs.share_of(path)

    async def write() -> None:
        async with Upload(share, name, path, 5 << 30) as upload:
            # As if all before it had been sent; the server leaves a hole there.
            upload._sent = upload._confirmed = (4 << 30) - 3
            await upload.write(memoryview(b"across" + bytes(20 << 20) + b"the end"))
            await upload.commit()

    sync(fs.loop, write)
    with (place.path / "sparse").open("rb") as file:
        file.seek((4 << 30) - 3)
        assert file.read() == b"across" + bytes(20 << 20) + b"the end"


# Not getrusage: its maximum outlives exec, and is that of the whole test process from which this one was forked.
LARGE = """
import re, sys
from pathlib import Path
from dvc_smb.filesystem import SMB
host, port, user, password, local, remote, back = sys.argv[1:]
fs = SMB(host, port=int(port), user=user, password=password)
fs.put_file(local, remote)
fs.get_file(remote, back)
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_a_large_file_is_never_in_memory(place: Place, tmp_path: Path) -> None:
    with (tmp_path / "source").open("wb") as file:
        file.truncate(600 << 20)
    server = place.server
    arguments = [server.host, str(server.port), server.user, server.password]
    arguments += [str(tmp_path / "source"), f"{place.smb_path}/large", str(tmp_path / "back")]
    try:
        done = subprocess.run(
            [sys.executable, "-c", LARGE, *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=ENVIRONMENT,
        )
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) < 200, "megabytes, of which an empty client needs about 60"
        assert (tmp_path / "back").stat().st_size == (place.path / "large").stat().st_size == 600 << 20
    finally:
        for path in (place.path / "large", tmp_path / "back"):
            path.unlink(missing_ok=True)


# Objects that are not what their name says.


@pytest.mark.parametrize("size", [5, FIRST_READ + 5, STRIPED + 5])
@pytest.mark.parametrize("damage", ["truncated", "emptied", "altered"])
def test_a_damaged_object_never_arrives(fs: SMB, place: Place, tmp_path: Path, size: int, damage: str) -> None:
    data = content(size)
    path = object_path(place.smb_path, data)
    stored = place.path / path.removeprefix(f"{place.smb_path}/")
    stored.parent.mkdir(parents=True)
    stored.write_bytes({"truncated": data[:-1], "emptied": b"", "altered": data[:-1] + bytes([data[-1] ^ 1])}[damage])
    target = tmp_path / "target"
    with pytest.raises(AlteredObject, match="truncated or altered") as caught:
        fs.get_file(path, str(target))
    assert path in str(caught.value)
    with pytest.raises(AlteredObject):
        fs.cat_file(path)
    assert names_in(tmp_path) == []
    target.write_bytes(b"what was there before")
    with pytest.raises(AlteredObject):
        fs.get([path], [str(target)])
    assert target.read_bytes() == b"what was there before"
    stored.write_bytes(data)
    fs.get_file(path, str(target))
    assert target.read_bytes() == data


def test_without_verify_only_the_length_counts(place: Place, tmp_path: Path) -> None:
    trusting = connect(place.server, verify=False)
    path = object_path(place.smb_path, b"original")
    trusting.pipe_file(path, b"altered")
    trusting.get_file(path, str(tmp_path / "target"))
    assert (tmp_path / "target").read_bytes() == b"altered"
    trusting.close()


@pytest.mark.parametrize("size", [5, SMALL + 5])
def test_a_damaged_cache_object_is_never_pushed(fs: SMB, place: Place, tmp_path: Path, size: int) -> None:
    data = content(size)
    path = object_path(place.smb_path, data)
    cached = tmp_path / "cached"
    cached.write_bytes(data[:-1])
    with pytest.raises(AlteredObject, match="was not pushed") as caught:
        fs.put_file(str(cached), path)
    assert str(cached) in str(caught.value)
    assert files_below(place.path) == []
    cached.write_bytes(data)
    fs.put_file(str(cached), path)
    assert files_below(place.path) == [path.removeprefix(f"{place.smb_path}/")]


# Disks that are full.


def test_a_server_renames_although_it_could_not_write_so_we_ask_before(new_smbd: Callable[..., Smbd]) -> None:
    """The reason why an upload takes two round trips: should this fail one day, one is enough."""
    server = new_smbd({"tiny": Share(size_limit=1 << 20)})
    fs = connect(server)
    share, _ = fs.share_of("/tiny/file")

    async def in_one_compound() -> list[int]:
        connection = await share.pool.pick()
        requests = [
            messages.create("temporary", messages.WRITE_DATA | messages.DELETE, messages.CREATE_NEW),
            messages.write(messages.RELATED_FILE, 0, bytes(1 << 20)),
            messages.write(messages.RELATED_FILE, 1 << 20, bytes(1 << 20)),
            messages.rename(messages.RELATED_FILE, "final", replace=True),
            messages.close(messages.RELATED_FILE),
        ]
        return [(await future).status for future in await connection.send(requests)]

    states = sync(fs.loop, in_one_compound)
    assert [state == status.SUCCESS for state in states] == [True, True, False, True, True]
    assert (server.path("tiny") / "final").stat().st_size < 2 << 20
    fs.close()


@pytest.mark.parametrize("size", [900_000, SMALL + 5, STRIPED + 5])
def test_a_full_share_is_said_and_leaves_nothing(new_smbd: Callable[..., Smbd], tmp_path: Path, size: int) -> None:
    server = new_smbd({"tiny": Share(size_limit=1 << 20)})
    disk = server.path("tiny")
    (disk / "other").write_bytes(bytes(500_000))
    fs = connect(server)
    data = content(size)
    (tmp_path / "source").write_bytes(data)
    with pytest.raises(OSError, match="the share is full"):
        fs.put_file(str(tmp_path / "source"), object_path("/tiny", data))
    assert files_below(disk) == ["other"]
    fs.close()


@pytest.mark.parametrize("size", [900_000, FIRST_READ + 5])
def test_a_full_local_disk_is_said_and_leaves_nothing(new_smbd: Callable[..., Smbd], size: int) -> None:
    server = new_smbd({"tiny": Share(size_limit=1 << 20), "sambashare": Share()})
    local = server.path("tiny")
    (local / "other").write_bytes(bytes(500_000))
    (server.path() / "file").write_bytes(bytes(size))
    fs = connect(server)
    with pytest.raises(OSError, match="No space left") as caught:
        fs.get_file("/sambashare/file", str(local / "file"))
    assert caught.value.filename == str(local / "file")
    assert files_below(local) == ["other"]
    fs.close()


def test_a_share_that_may_only_be_read_is_said(place: Place, tmp_path: Path) -> None:
    fs = connect(place.server)
    (tmp_path / "source").write_bytes(b"content")
    with pytest.raises(OSError, match=r"read-only|rights"):
        fs.put_file(str(tmp_path / "source"), "/readonly/file")
    (place.server.path("readonly") / "here").write_bytes(b"content")
    assert fs.cat_file("/readonly/here") == b"content"
    assert fs.find("/readonly") == ["/readonly/here"]
    fs.close()


# What dead clients leave.


def test_uploads_to_a_remote_lie_outside_of_every_folder_that_dvc_lists(fs: SMB, place: Place) -> None:
    path = object_path(f"{place.smb_path}/dvc", b"content")
    share, name = fs.share_of(path)

    async def seen_meanwhile() -> list[str]:
        async with Upload(share, name, path):
            return files_below(place.path)

    (temporary,) = sync(fs.loop, seen_meanwhile)
    assert temporary.startswith("dvc/.dvc-smb-tmp/")
    assert fs.find(f"{place.smb_path}/dvc") == []
    assert fs.ls(f"{place.smb_path}/dvc", detail=False) == [f"{place.smb_path}/dvc/files"]
    assert files_below(place.path) == []


def test_what_dead_clients_left_is_cleaned_by_the_next_upload(fs: SMB, place: Place) -> None:
    mine = f"{names.TEMPORARY_PREFIX}{temporaries._machine()}-00000000-1"
    foreign = f"{names.TEMPORARY_PREFIX}{'0' * 12}-00000000-1"
    old_foreign = f"{names.TEMPORARY_PREFIX}{'0' * 12}-00000000-2"
    unrelated = f"{names.TEMPORARY_PREFIX}notes.txt"
    for folder in (place.path / "dvc" / names.TEMPORARY_FOLDER, place.path / "plain"):
        folder.mkdir(parents=True)
        for name in (mine, foreign, old_foreign, unrelated):
            (folder / name).write_bytes(b"partial")
        long_ago = time.time() - temporaries.ABANDONED - 60
        os.utime(folder / old_foreign, (long_ago, long_ago))
    path = object_path(f"{place.smb_path}/dvc", b"content")
    fs.cat_ranges([f"{place.smb_path}/plain/{unrelated}"], [0], [1])
    assert len(files_below(place.path)) == 8, "reading cleans nothing"
    fs.pipe_file(path, b"content")
    fs.pipe_file(f"{place.smb_path}/plain/file", b"content")
    assert names_in(place.path / "dvc" / names.TEMPORARY_FOLDER) == sorted([foreign, unrelated])
    assert names_in(place.path / "plain") == sorted([foreign, unrelated, "file"])


def test_what_another_process_is_writing_is_never_cleaned(fs: SMB, place: Place) -> None:
    path = object_path(place.smb_path, b"content")
    share, name = fs.share_of(path)
    folder = place.path / names.TEMPORARY_FOLDER

    async def in_use() -> bytes:
        async with Upload(share, name, path) as upload:
            await upload.write(memoryview(b"content"))
            (temporary,) = names_in(folder)
            # As if a process of this machine that is not this one had it open.
            other = f"{names.TEMPORARY_PREFIX}{temporaries._machine()}-00000000-1"
            (folder / temporary).rename(folder / other)
            with pytest.raises(OSError, match="another client"):
                await share.remove_file(f"{name.partition('/')[0]}/{names.TEMPORARY_FOLDER}/{other}", path)
            (folder / other).rename(folder / temporary)
            await upload.commit()
        return await fs._cat_file(path)

    assert sync(fs.loop, in_use) == b"content"


PUSHING = """
import sys
from dvc_smb.filesystem import SMB
from fsspec.asyn import sync
from dvc_smb.upload import Upload
host, port, user, password, remote = sys.argv[1:]
fs = SMB(host, port=int(port), user=user, password=password)
share, name = fs.share_of(remote)
async def half():
    async with Upload(share, name, remote, 32 << 20) as upload:
        await upload.write(memoryview(bytes(20 << 20)))
        while upload._pending:
            await upload._confirm_oldest()
        print("half", flush=True)
        sys.stdin.read()
sync(fs.loop, half)
"""


def test_the_server_removes_what_a_killed_client_was_writing(place: Place) -> None:
    server, path = place.server, object_path(place.smb_path, b"never whole")
    arguments = [server.host, str(server.port), server.user, server.password, path]
    with subprocess.Popen(
        [sys.executable, "-c", PUSHING, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        (temporary,) = files_below(place.path)
        assert (place.path / temporary).stat().st_size == 20 << 20
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    deadline = time.monotonic() + 10
    while files_below(place.path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert files_below(place.path) == []


def test_a_folder_that_vanished_is_made_again(fs: SMB, place: Place, tmp_path: Path) -> None:
    for size in (5, SMALL + 5):
        (tmp_path / "source").write_bytes(data := content(size))
        path = object_path(f"{place.smb_path}/dvc", data)
        fs.put_file(str(tmp_path / "source"), path)
        connect(place.server).rm(f"{place.smb_path}/dvc", recursive=True)
        assert not list(place.path.iterdir())
        fs.put_file(str(tmp_path / "source"), path)
        assert fs.cat_file(path) == data


def test_two_clients_pushing_the_same_object_both_succeed(place: Place, tmp_path: Path) -> None:
    clients = [connect(place.server) for _ in range(4)]
    for size in (5, SMALL + 5, STRIPED + 5):
        data = content(size)
        path = object_path(place.smb_path, data)
        (tmp_path / "source").write_bytes(data)
        with ThreadPoolExecutor(len(clients)) as threads:
            for done in [threads.submit(client.put_file, str(tmp_path / "source"), path) for client in clients * 3]:
                done.result(60)
        assert (place.path / path.removeprefix(f"{place.smb_path}/")).read_bytes() == data
    assert len(files_below(place.path)) == 3
    for client in clients:
        client.close()


def test_create_never_replaces(fs: SMB, place: Place, tmp_path: Path) -> None:
    (place.path / "file").write_bytes(b"old")
    for size in (5, SMALL + 5):
        (tmp_path / "source").write_bytes(content(size))
        with pytest.raises(FileExistsError):
            fs.put_file(str(tmp_path / "source"), f"{place.smb_path}/file", mode="create")
        with pytest.raises(FileExistsError):
            fs.pipe_file(f"{place.smb_path}/file", content(size), mode="create")
    assert files_below(place.path) == ["file"]
    assert (place.path / "file").read_bytes() == b"old"


def test_a_file_never_replaces_a_folder(fs: SMB, place: Place, tmp_path: Path) -> None:
    (place.path / "folder").mkdir()
    for size in (5, SMALL + 5):
        with pytest.raises(IsADirectoryError):
            fs.pipe_file(f"{place.smb_path}/folder", content(size))
    assert files_below(place.path) == []


def test_many_files_at_once(fs: SMB, place: Place, tmp_path: Path) -> None:
    contents = {f"{number % 7}/{number}": os.urandom(number * 37 % 5000) for number in range(500)}
    for name, data in contents.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(data)
    fs.put(f"{tmp_path}/source/", f"{place.smb_path}/target/", recursive=True)
    assert {name: (place.path / "target" / name).read_bytes() for name in contents} == contents
    fs.get(f"{place.smb_path}/target/", f"{tmp_path}/back/", recursive=True)
    assert {name: (tmp_path / "back" / name).read_bytes() for name in contents} == contents
    assert len(files_below(place.path)) == len(files_below(tmp_path / "back")) == 500


def test_a_cancelled_transfer_leaves_nothing(fs: SMB, place: Place, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(64 << 20))
    (place.path / "there").write_bytes(bytes(64 << 20))

    async def cancel() -> None:
        up = asyncio.ensure_future(fs._put_file(str(tmp_path / "source"), f"{place.smb_path}/file"))
        down = asyncio.ensure_future(fs._get_file(f"{place.smb_path}/there", str(tmp_path / "target")))
        while not (any(tmp_path.glob("*.part")) and any(place.path.glob(".dvc-smb-*"))):
            await asyncio.sleep(0.001)
        for task in (up, down):
            task.cancel()
        await asyncio.wait([up, down])
        assert up.cancelled()
        assert down.cancelled()

    sync(fs.loop, cancel)
    deadline = time.monotonic() + 10
    while files_below(place.path) != ["there"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert files_below(place.path) == ["there"]
    assert names_in(tmp_path) == ["source"]
