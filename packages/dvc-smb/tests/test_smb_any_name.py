"""Whatever a file is called and however long it is: it comes back the same, or is refused before anything is sent."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dvc_smb.filesystem import SMB
from dvc_smb.options import Options
from dvc_smb.smb2 import messages
from dvc_smb.smb2.pool import Pool
from smb_servers.fixtures import Place

MIB = 1 << 20
numbers = itertools.count()

# What Linux takes: anything but a slash and NUL, 255 bytes.
characters = st.one_of(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]),
    st.sampled_from("aAzZ0~#%&+;= .'\"*:<>?|\\äßÄée\u0301日本😀\u200d\x01\x7f\n"),
)
names = st.text(characters, min_size=1, max_size=80).filter(
    # Names of our own temporaries are ours: they are not shown.
    lambda name: name not in (".", "..") and not name.startswith(".dvc-smb-")
)
sizes = st.one_of(
    st.sampled_from([0, 1, 2, 65535, 65536, 65537, MIB - 1, MIB, MIB + 1, 8 * MIB + 3]), st.integers(0, 200_000)
)
# The same examples each time; the fixtures are only a server and a folder.
repeatable = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def client(place: Place) -> SMB:
    return SMB("127.0.0.1", port=place.server.port, user="alice", password=place.server.password)


@settings(repeatable, max_examples=120)
@given(name=names, folder=names, size=st.integers(0, 100))
@example(name="a:b", folder="a", size=3)
@example(name="a\\b", folder="a", size=3)
@example(name="a.", folder="a", size=3)
@example(name="a ", folder="b ", size=3)
@example(name="~$x", folder="A~1", size=3)
@example(name="é", folder="e\u0301", size=3)
@example(name="x" * 255, folder="ü" * 127, size=3)
@example(name="x" * 256, folder="a", size=3)
def test_names(client: SMB, place: Place, name: str, folder: str, size: int) -> None:
    root = f"run{next(numbers)}"
    (place.path / root).mkdir()
    content = random.Random(size).randbytes(size)
    target = f"{place.smb_path}/{root}/{folder}/{name}"
    local = place.path.parent / f"{place.path.name}-local"
    local.write_bytes(content)
    try:
        client.put_file(str(local), target)
    except OSError:
        # Refused, so nothing was made of a part of the name.
        assert list((place.path / root).iterdir()) == []
        assert not representable(name) or not representable(folder)
        return
    assert (place.path / root / folder / name).read_bytes() == content
    assert [entry.name for entry in (place.path / root).iterdir()] == [folder]
    assert [entry.name for entry in (place.path / root / folder).iterdir()] == [name]
    listed = client.ls(f"{place.smb_path}/{root}/{folder}", detail=True)
    assert [(entry["name"], entry["size"]) for entry in listed] == [(target, size)]
    assert client.find(f"{place.smb_path}/{root}") == [target]
    assert client.info(target)["type"] == "file"
    client.get_file(target, str(local))
    assert local.read_bytes() == content
    assert client.cat_file(target) == content
    client.rm_file(target)
    assert not (place.path / root / folder / name).exists()
    assert not client.exists(target)


@pytest.mark.parametrize("name", ["CON", "aux.txt", "a~1"])
def test_names_that_windows_reserves(client: SMB, place: Place, tmp_path: Path, name: str) -> None:
    """Samba lists a device's name mangled (``mangled names``), but takes and gives the file under its own."""
    (tmp_path / "here").write_text("content")
    client.put_file(str(tmp_path / "here"), f"{place.smb_path}/{name}")
    assert (place.path / name).read_text() == "content"
    assert client.cat_file(f"{place.smb_path}/{name}") == b"content"
    (listed,) = client.ls(place.smb_path, detail=False)
    assert client.cat_file(listed) == b"content"


def representable(name: str) -> bool:
    """Return whether SMB has this name ([MS-FSCC] 2.1.5) and the server's disk too."""
    forbidden = set(name) & set('"*:<>?|\\\x7f') or min(name) < " " or name[-1] in ". "
    return not forbidden and len(name.encode()) <= 255


@settings(repeatable, max_examples=40)
@given(size=sizes, seed=st.integers(0, 1 << 32))
def test_sizes(client: SMB, place: Place, tmp_path: Path, size: int, seed: int) -> None:
    content = random.Random(seed).randbytes(size)
    (tmp_path / "here").write_bytes(content)
    client.put_file(str(tmp_path / "here"), f"{place.smb_path}/there")
    assert (place.path / "there").read_bytes() == content
    client.get_file(f"{place.smb_path}/there", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content
    generator = random.Random(seed + 1)
    for _ in range(4):
        start, end = sorted(generator.choices(range(size + 1), k=2))
        assert client.cat_file(f"{place.smb_path}/there", start=start, end=end) == content[start:end]
        with client.open(f"{place.smb_path}/there", "rb") as file:
            file.seek(start)
            assert file.read(end - start) == content[start:end]


def test_names_that_differ_in_case_are_two_files_or_an_error(client: SMB, place: Place, tmp_path: Path) -> None:
    """A share does not tell ``A`` from ``a``: it must not overwrite one with the other without a word."""
    for name in ("model.bin", "Model.bin"):
        (tmp_path / name).write_text(name)
        client.put_file(str(tmp_path / name), f"{place.smb_path}/{name}")
    stored = {path.name: path.read_text() for path in place.path.iterdir()}
    assert len(stored) in (1, 2)
    for name, content in stored.items():
        assert client.cat_file(f"{place.smb_path}/{name}") == content.encode()


def test_a_long_path(client: SMB, place: Place, tmp_path: Path) -> None:
    path = "/".join(["folder-" + "x" * 60] * 12) + "/file"
    (tmp_path / "file").write_text("content")
    client.put_file(str(tmp_path / "file"), f"{place.smb_path}/{path}")
    assert (place.path / path).read_text() == "content"
    assert client.find(place.smb_path) == [f"{place.smb_path}/{path}"]
    client.get_file(f"{place.smb_path}/{path}", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "content"


def test_more_than_4_gib(client: SMB, place: Place, tmp_path: Path) -> None:
    """A sparse file of 5 GB in the share: its size, and reads on both sides of 2 and 4 GiB, across connections."""
    size = 5_000_000_000
    marks = {(1 << 31) - 5: b"two GiB border", (1 << 32) - 7: b"four GiB border", size - 8: b"the end."}
    with (place.path / "large").open("wb") as file:
        file.truncate(size)
        for offset, mark in marks.items():
            file.seek(offset)
            file.write(mark)
    target = f"{place.smb_path}/large"
    assert client.info(target)["size"] == size
    assert client.ls(place.smb_path, detail=True)[0]["size"] == size
    for offset, mark in marks.items():
        assert client.cat_file(target, start=offset, end=offset + len(mark)) == mark
        window = client.cat_file(target, start=offset - 30_000_000, end=offset + len(mark))
        assert window == bytes(30_000_000) + mark


def test_a_write_behind_4_gib(place: Place) -> None:
    """A sparse file on the server is made by one write, and the engine's offsets have 64 bits."""
    options = Options(host="127.0.0.1", port=place.server.port, user="alice", password=place.server.password)
    offset = (1 << 32) + 12_345

    async def write() -> None:
        pool = Pool(options, place.share)
        connection = await pool.pick()
        created = messages.create(f"{place.name}/sparse", messages.WRITE_DATA, messages.CREATE_NEW)
        written = messages.write(messages.RELATED_FILE, offset, b"behind four GiB")
        for future in await connection.send([created, written, messages.close(messages.RELATED_FILE)]):
            assert (await future).status == 0
        await pool.close()

    asyncio.run(write())
    with (place.path / "sparse").open("rb") as file:
        file.seek(offset)
        assert file.read() == b"behind four GiB"
