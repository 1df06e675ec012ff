"""What an fsspec filesystem can do, on a real share; each test says what a folder on the local disk would say."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest

from dvc_smb.errors import EndlessFolder
from dvc_smb.filesystem import SMB
from dvc_smb.options import OptionError
from dvc_smb.smb2 import pool
from dvc_smb.smb2.errors import LoginError, ShareNotFound, Unreachable
from smb_servers.fixtures import Place
from smb_servers.proxy import Proxy
from smb_servers.smbd import Share, Smbd


def login(server: Smbd) -> dict[str, object]:
    return {"host": server.host, "port": server.port, "user": server.user, "password": server.password}


@pytest.fixture
def fs(place: Place) -> Iterator[SMB]:
    made = SMB(**login(place.server), skip_instance_cache=True)  # type: ignore[arg-type]
    yield made
    made.close()


@pytest.fixture
def root(place: Place) -> str:
    return place.smb_path


@pytest.fixture
def tree(place: Place) -> Path:
    """``a/1``, ``a/b/2``, ``a/b/c/3`` with their names as content, and ``empty/``."""
    for name in ("a/1", "a/b/2", "a/b/c/3"):
        (place.path / name).parent.mkdir(parents=True, exist_ok=True)
        (place.path / name).write_text(name)
    (place.path / "empty").mkdir()
    return place.path


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody reaches and may write, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture
def unprivileged(new_smbd: Callable[..., Smbd], open_folder: Path) -> Iterator[SMB]:
    """A filesystem whose files are read and written with the rights of ``nobody``."""
    server = new_smbd({"sambashare": Share(open_folder, unix_user="nobody")})
    made = SMB(**login(server), skip_instance_cache=True)  # type: ignore[arg-type]
    yield made
    made.close()


# What there is.


def test_info(fs: SMB, root: str, tree: Path) -> None:
    info = fs.info(f"{root}/a/1")
    assert (info["name"], info["size"], info["type"]) == (f"{root}/a/1", 3, "file")
    assert info["mtime"] == pytest.approx((tree / "a" / "1").stat().st_mtime, abs=1e-3)
    assert fs.info(f"{root}/a")["type"] == fs.info("/sambashare")["type"] == fs.info("/")["type"] == "directory"
    assert fs.info(f"{fs.unstrip_protocol(root)}/a/1/") == info
    assert next(entry for entry in fs.ls(f"{root}/a") if entry["type"] == "file") == info
    assert datetime.now(UTC) - fs.modified(f"{root}/a/1") < timedelta(minutes=1)
    assert fs.created(f"{root}/a/1") <= fs.modified(f"{root}/a/1")


def test_a_changed_file_has_another_key(fs: SMB, root: str, tree: Path) -> None:
    before = fs.ukey(f"{root}/a/1"), fs.checksum(f"{root}/a/1")
    assert before == (fs.ukey(f"{root}/a/1"), fs.checksum(f"{root}/a/1"))
    (tree / "a" / "1").write_text("b/1")
    after = fs.ukey(f"{root}/a/1"), fs.checksum(f"{root}/a/1")
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_what_exists(fs: SMB, root: str, tree: Path) -> None:
    there = {
        "": (False, True),
        "/a": (False, True),
        "/a/1": (True, False),
        "/x": (False, False),
        "/a/1/x": (False, False),
    }
    for name, kinds in there.items():
        assert (fs.isfile(root + name), fs.isdir(root + name)) == kinds
        assert fs.exists(root + name) is any(kinds)
        assert fs.lexists(root + name) is any(kinds)


def test_what_is_missing_is_said_with_its_path(fs: SMB, root: str, tree: Path) -> None:
    for name in ("x", "x/y"):
        path = f"{root}/{name}"
        for call in (fs.info, fs.cat_file, fs.ls, fs.rm_file, fs.rmdir, fs.rm, fs.size, fs.open, fs.modified):
            with pytest.raises(FileNotFoundError) as caught:
                call(path)
            assert path in str(caught.value)
        with pytest.raises(FileNotFoundError):
            fs.mv(path, f"{root}/z")
        with pytest.raises(FileNotFoundError):
            fs.cp_file(path, f"{root}/z")
        assert fs.find(path) == []
    assert sorted(path.name for path in tree.iterdir()) == ["a", "empty"]


def test_ls(fs: SMB, root: str, tree: Path) -> None:
    assert sorted(fs.ls(root, detail=False)) == [f"{root}/a", f"{root}/empty"]
    assert fs.ls(f"{root}/empty") == []
    assert fs.ls(f"{root}/a/1", detail=False) == [f"{root}/a/1"]
    assert {entry["type"] for entry in fs.ls(root)} == {"directory"}


def test_find_walk_glob_and_du_are_as_on_the_local_disk(fs: SMB, root: str, tree: Path) -> None:
    local = fsspec.filesystem("file")

    def below(found: object, base: str) -> object:
        return eval(repr(found).replace(base, ""))

    for call in (
        lambda fs, base: fs.find(base),
        lambda fs, base: fs.find(base, withdirs=True),
        lambda fs, base: fs.find(base, maxdepth=2),
        lambda fs, base: sorted(fs.find(base, detail=True)),
        lambda fs, base: fs.find(f"{base}/a/1"),
        lambda fs, base: fs.find(f"{base}/empty"),
        lambda fs, base: [(path, sorted(dirs), sorted(files)) for path, dirs, files in fs.walk(base)],
        lambda fs, base: fs.glob(f"{base}/a/*"),
        lambda fs, base: fs.glob(f"{base}/**/[23]"),
        lambda fs, base: fs.glob(f"{base}/x*"),
        lambda fs, base: fs.du(base),
        lambda fs, base: fs.du(base, total=False),
    ):
        assert below(call(fs, root), root) == below(call(local, str(tree)), str(tree))


def test_a_folder_of_more_names_than_one_answer_holds(fs: SMB, root: str, place: Place) -> None:
    names = [f"{'long name ' * 12}{number}" for number in range(6000)]
    for name in names:
        (place.path / name).touch()
    assert sorted(fs.ls(root, detail=False)) == sorted(f"{root}/{name}" for name in names)


def test_symbolic_links_on_the_server_are_what_they_lead_to(fs: SMB, root: str, tree: Path) -> None:
    (tree / "link").symlink_to("a/b")
    (tree / "file").symlink_to("a/1")
    (tree / "dangling").symlink_to("nowhere")
    assert fs.cat_file(f"{root}/file") == b"a/1"
    assert fs.find(f"{root}/link") == [f"{root}/link/2", f"{root}/link/c/3"]
    assert not fs.exists(f"{root}/dangling")


def test_a_folder_that_lies_in_itself_ends(fs: SMB, root: str, tree: Path) -> None:
    (tree / "a" / "loop").symlink_to(".")
    (tree / "a" / "other").symlink_to(".")
    with pytest.raises(EndlessFolder, match=f"leads back to {root}/a"):
        fs.find(root)


def test_equal_folders_inside_each_other_are_no_loop(fs: SMB, root: str, place: Place) -> None:
    deepest = place.path.joinpath(*["same"] * 12)
    deepest.mkdir(parents=True)
    (deepest / "file").touch()
    assert fs.find(root) == [root + "/same" * 12 + "/file"]


def test_a_folder_that_may_not_be_listed_is_an_error_and_not_empty(unprivileged: SMB, open_folder: Path) -> None:
    (open_folder / "open").mkdir()
    (open_folder / "closed").mkdir(mode=0o700)
    with pytest.raises(PermissionError, match="closed"):
        unprivileged.find("/sambashare")


def test_space(fs: SMB, root: str, place: Place) -> None:
    total, free = fs.space(root)
    disk = os.statvfs(place.path)
    assert total == pytest.approx(disk.f_blocks * disk.f_frsize, rel=0.01)
    assert 0 < free < total


# Content.


@pytest.mark.parametrize("size", [0, 10, (2 << 20) + 10])
def test_cat_file_with_ranges_is_slicing(fs: SMB, root: str, place: Place, size: int) -> None:
    data = random.Random(1).randbytes(size)
    (place.path / "file").write_bytes(data)
    for start in (None, 0, 3, -3, size, size + 5):
        for end in (None, 0, 7, -2, size, size + 5):
            assert fs.cat_file(f"{root}/file", start=start, end=end) == data[start:end]
    with pytest.raises(IsADirectoryError):
        fs.cat_file(root)
    assert fs.cat_ranges([f"{root}/file"] * 2, [0, 1], [2, 3]) == [data[0:2], data[1:3]]
    assert fs.head(f"{root}/file", 4) == data[:4]
    assert fs.cat([f"{root}/file"]) == {f"{root}/file": data}


def test_pipe_replaces_and_makes_folders(fs: SMB, root: str, place: Place) -> None:
    for data in (b"first", b"", bytes(3 << 20)):
        fs.pipe_file(f"{root}/new/folder/file", data)
        assert (place.path / "new" / "folder" / "file").read_bytes() == data
    fs.pipe({f"{root}/1": b"one", f"{root}/2": b"two"})
    assert (place.path / "2").read_bytes() == b"two"


@pytest.mark.parametrize("size", [0, 5, 1 << 20, (20 << 20) + 5])
def test_open_to_write_and_to_read(fs: SMB, root: str, place: Place, size: int) -> None:
    data = random.Random(1).randbytes(size)
    with fs.open(f"{root}/folder/file", "wb") as file:
        for start in range(0, size, 700_001):
            file.write(data[start : start + 700_001])
        assert not (place.path / "folder" / "file").exists(), "seen before it is whole"
    assert (place.path / "folder" / "file").read_bytes() == data
    with fs.open(f"{root}/folder/file", "rb") as file:
        assert b"".join(iter(lambda: file.read(1_000_003), b"")) == data
        assert file.seek(-2, os.SEEK_END) == size - 2 if size else True
        assert file.read() == data[-2:]
    assert [path.name for path in (place.path / "folder").iterdir()] == ["file"]


def test_open_text_lines(fs: SMB, root: str, place: Place) -> None:
    with fs.open(f"{root}/text", "w", encoding="utf-8") as file:
        file.write("erste\nzweite Zeile: ü\n")
    with fs.open(f"{root}/text", "r", encoding="utf-8") as file:
        assert file.readlines() == ["erste\n", "zweite Zeile: ü\n"]


@pytest.mark.parametrize("old", [None, b"", b"old", bytes(3 << 20)])
def test_open_to_append(fs: SMB, root: str, place: Place, old: bytes | None) -> None:
    if old is not None:
        (place.path / "file").write_bytes(old)
    with fs.open(f"{root}/file", "ab") as file:
        file.write(b" and more")
    assert (place.path / "file").read_bytes() == (old or b"") + b" and more"


def test_open_for_a_new_file_only(fs: SMB, root: str, place: Place) -> None:
    with fs.open(f"{root}/file", "xb") as file:
        file.write(b"mine")
    with pytest.raises(FileExistsError):
        fs.open(f"{root}/file", "xb")
    with pytest.raises(NotImplementedError, match="mode"):
        fs.open(f"{root}/file", "r+b")
    assert (place.path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("size", [5, 20 << 20])
def test_an_exception_while_writing_changes_nothing(fs: SMB, root: str, place: Place, size: int) -> None:
    (place.path / "file").write_bytes(b"old")

    def fail() -> None:
        with fs.open(f"{root}/file", "wb") as file:
            file.write(bytes(size))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (place.path / "file").read_bytes() == b"old"
    assert [path.name for path in place.path.iterdir()] == ["file"]


def test_a_transaction_is_whole_or_not_at_all(fs: SMB, root: str, place: Place) -> None:
    with fs.transaction, fs.open(f"{root}/file", "wb") as file:
        file.write(bytes(9 << 20))
    assert (place.path / "file").stat().st_size == 9 << 20

    def fail() -> None:
        with fs.transaction:
            with fs.open(f"{root}/other", "wb") as file:
                file.write(b"other")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.name for path in place.path.iterdir()] == ["file"]


def test_touch(fs: SMB, root: str, place: Place) -> None:
    fs.touch(f"{root}/file")
    assert (place.path / "file").read_bytes() == b""


# Names.


def test_folders_are_made_and_removed(fs: SMB, root: str, place: Place) -> None:
    fs.mkdir(f"{root}/a/b/c")
    assert (place.path / "a" / "b" / "c").is_dir()
    with pytest.raises(FileExistsError):
        fs.mkdir(f"{root}/a/b/c")
    with pytest.raises(FileExistsError):
        fs.makedirs(f"{root}/a/b/c")
    fs.makedirs(f"{root}/a/b/c", exist_ok=True)
    with pytest.raises(FileNotFoundError):
        fs.mkdir(f"{root}/x/y", create_parents=False)
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir(f"{root}/a")
    fs.rmdir(f"{root}/a/b/c")
    fs.makedirs(f"{root}/a/b/c", exist_ok=True)
    assert (place.path / "a" / "b" / "c").is_dir()
    (place.path / "file").touch()
    with pytest.raises(FileExistsError):
        fs.makedirs(f"{root}/file", exist_ok=True)


def test_rm(fs: SMB, root: str, tree: Path) -> None:
    fs.rm_file(f"{root}/a/1")
    with pytest.raises(IsADirectoryError):
        fs.rm(f"{root}/a")
    with pytest.raises(NotADirectoryError):
        fs.rmdir(f"{root}/a/b/2")
    fs.rm(f"{root}/a", recursive=True)
    assert [path.name for path in tree.iterdir()] == ["empty"]
    for name in ("x[1]", "x1", "y1", "y2"):
        (tree / name).touch()
    fs.rm(f"{root}/x[1]")
    fs.rm([f"{root}/y1"])
    assert sorted(path.name for path in tree.iterdir()) == ["empty", "x1", "y2"]
    fs.rm(f"{root}/[xy]?")
    assert [path.name for path in tree.iterdir()] == ["empty"]


def test_rm_of_files_that_dvc_has_made_read_only(unprivileged: SMB, open_folder: Path) -> None:
    """As a local remote, on a mount of the share, DVC takes the right to write from each object."""
    for name in ("removed", "replaced"):
        unprivileged.pipe_file(f"/sambashare/{name}", b"old")
        (open_folder / name).chmod(0o444)
    unprivileged.rm("/sambashare/removed")
    unprivileged.pipe_file("/sambashare/replaced", b"new")
    assert [(path.name, path.read_bytes()) for path in open_folder.iterdir()] == [("replaced", b"new")]


def test_mv(fs: SMB, root: str, tree: Path) -> None:
    fs.mv(f"{root}/a/1", f"{root}/new/folder/one")
    assert (tree / "new" / "folder" / "one").read_text() == "a/1"
    fs.mv(f"{root}/new/folder/one", f"{root}/a/b/2")
    assert (tree / "a" / "b" / "2").read_text() == "a/1"
    fs.mv(f"{root}/a/b/2", f"{root}/empty")
    assert (tree / "empty" / "2").read_text() == "a/1"
    fs.mv(f"{root}/a/b", f"{root}/moved", recursive=True)
    assert (tree / "moved" / "c" / "3").read_text() == "a/b/c/3"
    fs.mv(f"{root}/moved/c/3", f"{root}/moved/c/3")
    fs.makedirs(f"{root}/a/b/c", exist_ok=True)
    assert (tree / "a" / "b" / "c").is_dir(), "a moved folder was still believed to exist"
    fs.mv(f"{root}/moved/c/3", "/encrypted/arrived")
    assert fs.cat_file("/encrypted/arrived") == b"a/b/c/3"
    assert not (tree / "moved" / "c" / "3").exists()


@pytest.mark.parametrize("size", [0, 5, (18 << 20) + 5])
def test_cp(fs: SMB, root: str, place: Place, size: int) -> None:
    data = random.Random(1).randbytes(size)
    (place.path / "a" / "b").mkdir(parents=True)
    (place.path / "a" / "b" / "file").write_bytes(data)
    fs.cp_file(f"{root}/a/b/file", f"{root}/new/file")
    fs.cp(f"{root}/a", f"{root}/copy", recursive=True)
    assert (place.path / "new" / "file").read_bytes() == data
    assert (place.path / "copy" / "b" / "file").read_bytes() == data
    assert (place.path / "a" / "b" / "file").read_bytes() == data


# Who asks, and how.


def test_many_calls_in_one_event_loop(place: Place) -> None:
    async def work() -> list[bytes]:
        fs = SMB(**login(place.server), asynchronous=True, skip_instance_cache=True)  # type: ignore[arg-type]
        paths = [f"{place.smb_path}/{number}" for number in range(300)]
        await asyncio.gather(*(fs._pipe_file(path, path.encode()) for path in paths))
        found = await fs._find(place.smb_path)
        contents = await asyncio.gather(*(fs._cat_file(path) for path in found))
        assert sorted(paths) == found
        await fs._close()
        return list(contents)

    assert len(set(asyncio.run(work()))) == 300


def test_urls_and_pickles(fs: SMB, root: str, place: Place) -> None:
    (place.path / "two words").write_bytes(b"content")
    assert fs.unstrip_protocol(f"{root}/two words") == f"{fs.fsid}{root}/two%20words"
    assert SMB._strip_protocol(f"{fs.fsid}{root}/two%20words") == f"{root}/two words"
    assert SMB._strip_protocol(f"{root}//two words/") == f"{root}/two words"
    again = pickle.loads(pickle.dumps(fs))
    assert again.cat_file(f"{root}/two words") == b"content"
    again.close()


def test_secrets_are_in_no_text(fs: SMB, place: Place) -> None:
    for text in (repr(fs), str(fs), repr(fs.options), fs.unstrip_protocol("/a/b"), repr(vars(fs)["options"])):
        assert place.server.password not in text


def test_options_are_checked() -> None:
    with pytest.raises(OptionError, match=r"conections.*connections"):
        SMB("server", conections=3)
    with pytest.raises(OptionError, match="port"):
        SMB("server", port=0)


def test_a_failed_login_is_no_missing_file(place: Place) -> None:
    wrong = SMB(**{**login(place.server), "password": "wrong"}, skip_instance_cache=True)  # type: ignore[arg-type]
    for call in (wrong.exists, wrong.isfile, wrong.isdir, wrong.find, wrong.ls, wrong.cat_file):
        with pytest.raises(LoginError):
            call(place.smb_path)
    right = SMB(**login(place.server), skip_instance_cache=True)  # type: ignore[arg-type]
    for call in (right.exists, right.isfile, right.find):
        with pytest.raises(ShareNotFound):
            call("/nosuchshare/file")
    nobody = SMB("127.0.0.1", port=1, user="alice", password="secret", skip_instance_cache=True)
    with pytest.raises(Unreachable):
        nobody.exists("/share/file")
    right.close()


def _in_child(options: dict[str, object], path: str, results: multiprocessing.Queue[bytes]) -> None:
    results.put(SMB(**options).cat_file(path))  # type: ignore[arg-type]


def test_a_forked_process_has_connections_of_its_own(fs: SMB, root: str, place: Place) -> None:
    (place.path / "file").write_bytes(b"content")
    assert fs.cat_file(f"{root}/file") == b"content"
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[bytes] = context.Queue()
    child = context.Process(target=_in_child, args=(login(place.server), f"{root}/file", results))
    child.start()
    assert results.get(timeout=20) == b"content"
    child.join(20)
    assert fs.cat_file(f"{root}/file") == b"content"


# Connections that end.


@pytest.fixture
def cut(place: Place, new_proxy: Callable[..., Proxy], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SMB, Proxy]]:
    """A filesystem behind a proxy that cuts; it tries again soon."""
    monkeypatch.setattr(pool, "_FIRST_DELAY", 0.01)
    proxy = new_proxy(place.server.port)
    fs = SMB(**{**login(place.server), "port": proxy.port}, connections=1, skip_instance_cache=True)  # type: ignore[arg-type]
    yield fs, proxy
    proxy.cut_no_more()
    fs.close()


@pytest.mark.parametrize("after", range(1, 900, 60))
def test_every_verb_survives_a_cut_anywhere(cut: tuple[SMB, Proxy], place: Place, after: int) -> None:
    fs, proxy = cut
    root = place.smb_path
    fs.makedirs(f"{root}/folder")
    verbs: dict[str, Callable[[], object]] = {
        "pipe": lambda: fs.pipe_file(f"{root}/folder/file", b"content"),
        "mv": lambda: fs.mv(f"{root}/folder/file", f"{root}/folder/moved"),
        "cat": lambda: fs.cat_file(f"{root}/folder/moved"),
        "cp": lambda: fs.cp_file(f"{root}/folder/moved", f"{root}/folder/copy"),
        "ls": lambda: len(fs.ls(f"{root}/folder")),
        "mkdir": lambda: fs.mkdir(f"{root}/folder/new"),
        "rm": lambda: fs.rm_file(f"{root}/folder/copy"),
        "rmdir": lambda: fs.rmdir(f"{root}/folder/new"),
    }
    results = {}
    for name, verb in verbs.items():
        proxy.cut_after(after)
        results[name] = verb()
    assert results["cat"] == b"content"
    assert results["ls"] == 2
    assert [path.name for path in (place.path / "folder").iterdir()] == ["moved"]


def test_a_server_that_comes_back_is_used_again(new_smbd: Callable[..., Smbd]) -> None:
    server = new_smbd()
    fs = SMB(**login(server), skip_instance_cache=True)  # type: ignore[arg-type]
    fs.pipe_file("/sambashare/file", b"content")
    server.kill()
    server.start()
    assert fs.cat_file("/sambashare/file") == b"content"
    fs.close()


def test_nothing_of_ours_stays_open_on_the_server(fs: SMB, root: str, place: Place) -> None:
    (place.path / "folder").mkdir()
    (place.path / "large").write_bytes(bytes(20 << 20))
    fs.cat_file(f"{root}/large")
    fs.pipe_file(f"{root}/folder/small", b"content")
    fs.pipe_file(f"{root}/folder/big", bytes(20 << 20))
    with pytest.raises(FileExistsError):
        fs.pipe_file(f"{root}/folder/big", bytes(2 << 20), mode="create")
    fs.ls(f"{root}/folder")
    fs.info(root)
    files = set(place.path.rglob("*"))
    links = subprocess.run(["ls", "-l", *map(str, Path("/proc").glob("[0-9]*/fd"))], capture_output=True, text=True)
    held = [line for line in links.stdout.splitlines() if any(f"-> {path}" in line for path in files)]
    assert held == []
