"""What a person reads when something is wrong: one line, within ten seconds, without a traceback or a secret."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from smb_dvc_process import Done, Repository

from smb_servers.fixtures import Place
from smb_servers.smbd import Share, Smbd

SECRET = "never-print-this-secret"
LIMIT = 10.0


@pytest.fixture(scope="module")
def added(empty_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a folder of 30 files: enough that an error for each of them would be seen."""
    path = tmp_path_factory.mktemp("added") / "repository"
    shutil.copytree(empty_repository, path)
    write(path / "data", count=30, size=100)
    Repository(path, tmp_path_factory.mktemp("home"), {}).run("add", "--quiet", "data")
    return path


def write(folder: Path, count: int, size: int) -> None:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.bin").write_bytes(os.urandom(size))


@pytest.fixture
def with_data(new_repository: Callable[..., Repository], added: Path) -> Callable[..., Repository]:
    """``with_data(url, password)`` makes a repository that has files to push to the URL."""

    def make(url: str, password: str | None = None) -> Repository:
        repository = new_repository(url, password)
        for name in ("data", "data.dvc", ".dvc/cache"):
            copy = shutil.copytree if (added / name).is_dir() else shutil.copy
            copy(added / name, repository.path / name)
        return repository

    return make


def assert_told(done: Done, *says: str, secret: str = SECRET) -> str:
    """Assert that the command failed in time with one line that says all of ``says``; return the line."""
    assert done.status not in (0, 70), done.printed
    assert done.seconds < LIMIT, done.printed
    assert len(done.errors) == 1, done.printed
    (line,) = done.errors
    for text in says:
        assert text in line
    assert "unexpected error" not in line
    assert "Traceback" not in done.printed
    assert "Having any troubles" not in done.printed
    assert secret not in done.printed
    return line


def assert_each_command_tells(repository: Repository, *says: str, secret: str = SECRET) -> None:
    """Assert it for a push, a pull, a status and a gc, and that ``-v``, which shows tracebacks, shows no secret."""
    assert_told(repository.dvc("push"), *says, secret=secret)
    assert_told(repository.dvc("status", "-c"), *says, secret=secret)
    assert_told(repository.dvc("gc", "-w", "-c", "-f"), *says, secret=secret)
    shutil.rmtree(repository.path / ".dvc/cache")
    shutil.rmtree(repository.path / "data")
    assert_told(repository.dvc("pull"), *says, secret=secret)
    verbose = repository.dvc("pull", "-v")
    assert verbose.status != 0
    assert secret not in verbose.printed


def test_wrong_password(with_data: Callable[..., Repository], place: Place):
    repository = with_data(place.url, SECRET)
    assert_each_command_tells(repository, "alice", "password", place.server.host)


def test_no_password(with_data: Callable[..., Repository], place: Place):
    repository = with_data(place.url)
    assert_told(repository.dvc("push"), "no password for alice at", "DVC_SMB_PASSWORD", "dvc remote modify --local")


def test_no_terminal_to_ask_on(with_data: Callable[..., Repository], place: Place):
    repository = with_data(place.url)
    repository.run("remote", "modify", "share", "ask_password", "true")
    assert_told(repository.dvc("push"), "ask_password needs a terminal", "alice")


def test_unknown_host(with_data: Callable[..., Repository]):
    repository = with_data("smb://alice@no-such-host.invalid/sambashare/dvc", SECRET)
    assert_told(repository.dvc("push"), "no-such-host.invalid")


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_closed_port(with_data: Callable[..., Repository], free_port: int):
    repository = with_data(f"smb://alice@127.0.0.1:{free_port}/sambashare/dvc", SECRET)
    assert_told(repository.dvc("push"), f"127.0.0.1:{free_port}")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield int(listener.getsockname()[1])


def test_silent_host(with_data: Callable[..., Repository], silent_port: int):
    repository = with_data(f"smb://alice@127.0.0.1:{silent_port}/sambashare/dvc", SECRET)
    assert_told(repository.dvc("push"), f"127.0.0.1:{silent_port}")


def test_no_smb_server(with_data: Callable[..., Repository]):
    """Something else answers, here in the words of a web server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        repository = with_data(f"smb://alice@127.0.0.1:{port}/sambashare/dvc", SECRET)
        assert_told(repository.dvc("push"), f"127.0.0.1:{port}")
        listener.shutdown(socket.SHUT_RDWR)


def test_wrong_share(with_data: Callable[..., Repository], smbd: Smbd):
    """Not an empty remote: a pull would say that the data was never pushed."""
    repository = with_data(smbd.url("dvc", "sambashore"), smbd.password)
    assert_each_command_tells(repository, "sambashore", secret=smbd.password)


def test_no_share(with_data: Callable[..., Repository], smbd: Smbd):
    repository = with_data(f"smb://alice@{smbd.host}:{smbd.port}", smbd.password)
    assert_told(repository.dvc("push"), "the URL names no share", secret=smbd.password)


def test_a_share_that_is_read_only(with_data: Callable[..., Repository], smbd: Smbd):
    repository = with_data(smbd.url("dvc", "readonly"), smbd.password)
    assert_told(repository.dvc("push"), "/readonly/dvc", "ask its administrator", secret=smbd.password)
    verbose = repository.dvc("push", "-v")
    assert verbose.status != 0
    assert smbd.password not in verbose.printed


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account may enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_an_account_that_may_only_read(
    with_data: Callable[..., Repository], new_smbd: Callable[..., Smbd], open_folder: Path
):
    server = new_smbd({"team": Share(path=open_folder, unix_user="nobody")})
    repository = with_data(server.url("dvc", "team"), server.password)
    assert_told(repository.dvc("push"), "/team/dvc", "ask its administrator", secret=server.password)


def test_an_account_that_may_not_enter_the_folder(with_data: Callable[..., Repository], smbd: Smbd):
    repository = with_data(smbd.url("dvc", "forbidden"), smbd.password)
    assert_told(repository.dvc("push"), "/forbidden/dvc", "ask its administrator", secret=smbd.password)


def test_disk_full(new_repository: Callable[..., Repository], new_smbd: Callable[..., Smbd]):
    server = new_smbd({"tiny": Share(size_limit=1 << 20)})
    repository = new_repository(server.url("dvc", "tiny"), server.password)
    write(repository.path / "data", count=40, size=100_000)
    repository.run("add", "--quiet", "data")
    assert_told(repository.dvc("push"), "the share is full", secret=server.password)


def test_smb1_only(with_data: Callable[..., Repository], new_smbd: Callable[..., Smbd]):
    server = new_smbd(
        globals={
            "server min protocol": "NT1",
            "server max protocol": "NT1",
            "server signing": "auto",
            "ntlm auth": "ntlmv1-permitted",
        }
    )
    repository = with_data(server.url("dvc"), server.password)
    assert_told(repository.dvc("push"), "SMB", secret=server.password)


def test_signing_is_mandatory(with_data: Callable[..., Repository], place: Place, smbd: Smbd):
    repository = with_data(place.url, smbd.password)
    repository.run("remote", "modify", "share", "sign", "false")
    assert_told(repository.dvc("push"), "sign", secret=smbd.password)


def test_encryption_is_required(with_data: Callable[..., Repository], smbd: Smbd):
    repository = with_data(smbd.url("dvc", "encrypted"), smbd.password)
    repository.run("remote", "modify", "share", "encrypt", "false")
    assert_told(repository.dvc("push"), "encrypt", secret=smbd.password)
    repository.run("remote", "modify", "share", "--unset", "encrypt")
    repository.run("push")


def test_a_guest_is_not_let_in(with_data: Callable[..., Repository], place: Place):
    repository = with_data(place.url)
    repository.run("remote", "modify", "share", "guest", "true")
    assert_told(repository.dvc("push"), "guest")


@pytest.mark.parametrize("share", ["altered", "truncated"])
@pytest.mark.parametrize("count", [1, 5])
def test_a_wrong_object_is_named_and_enters_nothing(repository: Repository, place: Place, share: str, count: int):
    write(repository.path / "data", count=count, size=100)
    repository.run("add", "--quiet", "data")
    repository.run("push")
    stored = [path for path in (place.path / "files/md5").rglob("*") if path.is_file() and path.suffix != ".dir"]
    wrong = stored[0]
    content = wrong.read_bytes()
    wrong.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if share == "altered" else content[:-1])
    shutil.rmtree(repository.path / ".dvc/cache")
    shutil.rmtree(repository.path / "data")

    done = repository.dvc("pull")
    name = wrong.parent.name + wrong.name
    assert done.status not in (0, 70)
    assert done.seconds < LIMIT
    assert "Traceback" not in done.printed
    assert place.server.password not in done.printed
    told = [line for line in done.errors if wrong.name in line]
    assert len(told) == 1, done.printed
    assert "md5" in told[0]
    cached = repository.path / ".dvc/cache/files/md5"
    assert not (cached / name[:2] / name[2:]).exists()
    assert not [path for path in cached.rglob("*") if path.is_file() and ".tmp" in path.name]

    # Once it is repaired, a pull fetches it and the list of the folder, which comes last; the others are here already.
    wrong.write_bytes(content)
    assert "2 files fetched" in repository.run("pull")
