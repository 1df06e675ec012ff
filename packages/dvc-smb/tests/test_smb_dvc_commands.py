"""Every command of DVC that touches a remote, against a real server; the share's own disk says what is there."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from smb_dvc_process import Done, Repository, run_forked
from smb_terminal import answer_on_terminal

from dvc_smb.names import TEMPORARY_FOLDER, TEMPORARY_PREFIX
from smb_servers.fixtures import Place

CONTENT = {
    "plain.txt": b"plain\n",
    "empty": b"",
    "with space/ü ñ 漢字 🙂.bin": bytes(range(256)) * 100,
    "deep/er/still/file #1 100% [x].dat": b"deep",
    "large.bin": b"0123456789abcdef" * 200_000,
}


def write(folder: Path, content: dict[str, bytes] = CONTENT) -> None:
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def read(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".gitignore"
    }


def objects(folder: Path) -> set[str]:
    """Return the names of the objects in a remote's folder; each has to be the md5 of its content."""
    found = set()
    for path in (folder / "files" / "md5").rglob("*"):
        if path.is_file():
            name = path.parent.name + path.name
            assert hashlib.md5(path.read_bytes()).hexdigest() == name.removesuffix(".dir")
            found.add(name)
    return found


def forget_cache(repository: Repository) -> None:
    shutil.rmtree(repository.path / ".dvc" / "cache", ignore_errors=True)


@pytest.fixture(scope="module")
def added(empty_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository after ``dvc add data``, to be copied."""
    path = tmp_path_factory.mktemp("added") / "repository"
    shutil.copytree(empty_repository, path)
    write(path / "data")
    Repository(path, tmp_path_factory.mktemp("home"), {}).run("add", "--quiet", "data")
    return path


@pytest.fixture
def pushed(repository: Repository, added: Path) -> Repository:
    """A repository whose ``data`` is in the share."""
    shutil.copytree(added / "data", repository.path / "data")
    shutil.copytree(added / ".dvc/cache", repository.path / ".dvc/cache")
    shutil.copy(added / "data.dvc", repository.path)
    assert "6 files pushed" in repository.run("push")
    return repository


def test_push_and_pull(pushed: Repository, place: Place):
    assert objects(place.path) == {hashlib.md5(data).hexdigest() for data in CONTENT.values()} | {
        name for name in objects(place.path) if name.endswith(".dir")
    }
    assert "Everything is up to date" in pushed.run("push")
    forget_cache(pushed)
    shutil.rmtree(pushed.path / "data")
    assert "6 files fetched" in pushed.run("pull")
    assert read(pushed.path / "data") == CONTENT
    assert "Everything is up to date" in pushed.run("pull")


def test_fetch_gets_only_what_is_missing(pushed: Repository):
    cached = sorted(path for path in (pushed.path / ".dvc/cache/files/md5").rglob("*") if path.is_file())
    for path in cached[:2]:
        path.chmod(0o644)
        path.unlink()
    assert "2 files fetched" in pushed.run("fetch")
    assert all(path.is_file() for path in cached)


def test_the_mounted_share_is_a_local_remote(
    pushed: Repository, place: Place, new_repository: Callable[..., Repository]
):
    mounted = new_repository()
    mounted.run("remote", "add", "--default", "mounted", str(place.path))
    shutil.copy(pushed.path / "data.dvc", mounted.path)
    mounted.run("pull")
    assert read(mounted.path / "data") == CONTENT
    write(mounted.path / "more", {"a": b"from the mount"})
    mounted.run("add", "--quiet", "more")
    mounted.run("push")
    shutil.copy(mounted.path / "more.dvc", pushed.path)
    pushed.run("pull")
    assert read(pushed.path / "more") == {"a": b"from the mount"}


def test_pull_from_an_empty_remote_names_what_is_missing(repository: Repository, place: Place):
    write(repository.path / "data", {"a": b"a"})
    repository.run("add", "--quiet", "data")
    forget_cache(repository)
    shutil.rmtree(repository.path / "data")
    place.path.rmdir()
    done = repository.dvc("pull")
    assert done.status != 0
    assert "Missing cache files" in done.printed
    assert not place.path.exists()


def test_push_makes_the_folder_of_the_remote(repository: Repository, place: Place):
    place.path.rmdir()
    repository.run("remote", "modify", "share", "url", place.url + "/not/there yet")
    write(repository.path / "data")
    repository.run("add", "--quiet", "data")
    repository.run("push", "-j", "3")
    assert len(objects(place.path / "not/there yet")) == 6


def test_status_in_the_cloud(repository: Repository):
    write(repository.path / "data", {"a": b"a", "b": b"b"})
    repository.run("add", "--quiet", "data")
    assert set(repository.json("status", "-c").values()) == {"new"}
    repository.run("push")
    assert "in sync" in repository.run("status", "-c")
    forget_cache(repository)
    assert set(repository.json("status", "-c").values()) == {"deleted"}


def test_gc_keeps_what_is_used_and_what_another_push_is_writing(pushed: Repository, place: Place):
    before = objects(place.path)
    write(pushed.path / "old", {"x": b"soon unused", "y": b"also"})
    pushed.run("add", "--quiet", "old")
    pushed.run("push")
    (pushed.path / "old.dvc").unlink()
    # Uploads of another machine, under way: where objects are uploaded, and beside them.
    being_written = [
        place.path / TEMPORARY_FOLDER / f"{TEMPORARY_PREFIX}aaaaaaaaaaaa-bbbbbbbb-0",
        place.path / "files/md5/ab" / f"{TEMPORARY_PREFIX}aaaaaaaaaaaa-bbbbbbbb-1",
    ]
    for path in being_written:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half of an obj")
    pushed.run("gc", "--workspace", "--cloud", "--force")
    assert all(path.exists() for path in being_written)
    being_written[1].unlink()
    assert objects(place.path) == before


def test_run_cache_goes_to_a_teammate(pushed: Repository, place: Place, new_repository: Callable[..., Repository]):
    stages = "stages:\n  copy:\n    cmd: cp data/plain.txt out.txt\n    deps: [data]\n    outs: [out.txt]\n"
    (pushed.path / "dvc.yaml").write_text(stages)
    pushed.run("repro")
    pushed.run("push", "--run-cache")
    assert any(path.is_file() for path in (place.path / "runs").rglob("*"))

    teammate = new_repository(place.url, place.server.password)
    shutil.copy(pushed.path / "data.dvc", teammate.path)
    (teammate.path / "dvc.yaml").write_text(stages)
    teammate.run("pull", "--run-cache", "data.dvc")
    assert "is cached - skipping run" in teammate.run("repro", "--pull")
    assert (teammate.path / "out.txt").read_bytes() == CONTENT["plain.txt"]


def test_repro_pull_fetches_what_it_needs(pushed: Repository):
    (pushed.path / "dvc.yaml").write_text(
        "stages:\n  count:\n    cmd: wc -c < data/large.bin > size\n    deps: [data]\n    outs: [size]\n"
    )
    forget_cache(pushed)
    shutil.rmtree(pushed.path / "data")
    pushed.run("repro", "--pull")
    assert int((pushed.path / "size").read_text()) == len(CONTENT["large.bin"])


def test_remote_add_modify_list(repository: Repository, place: Place):
    repository.run("remote", "add", "second", "smb://FACTORY;bob@[::1]:1445/other share/%C3%BC")
    for option, value in {"encrypt": "true", "connections": "2", "jobs": "8", "timeout": "5", "auth": "ntlm"}.items():
        repository.run("remote", "modify", "second", option, value)
    repository.run("remote", "modify", "--local", "second", "password", "x y")
    listed = repository.run("remote", "list")
    assert "smb://FACTORY;bob@[::1]:1445/other share/%C3%BC" in listed
    assert place.url in listed
    assert "x y" not in listed
    assert "x y" not in (repository.path / ".dvc/config").read_text()
    assert "x y" in (repository.path / ".dvc/config.local").read_text()


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("pasword", "x", "unknown option 'pasword': did you mean 'password'?"),
        ("port", "abc", "port is 'abc': expected a whole number from 1 to 65535"),
        ("sign", "maybe", "sign is 'maybe': expected true or false"),
        ("auth", "basic", "auth is 'basic': expected one of ntlm, kerberos, negotiate"),
        ("timeout", "-1", "timeout is '-1': expected seconds, more than 0"),
        ("version_aware", "true", "version_aware is not possible on smb://"),
        ("worktree", "true", "worktree is not possible on smb://"),
        ("url", "smb://alice:s3cr3t@storage/s", "holds a password, which would be committed"),
    ],
)
def test_a_wrong_option_is_an_error_that_names_it(repository: Repository, option: str, value: str, says: str):
    before = (repository.path / ".dvc/config").read_text()
    done = repository.dvc("remote", "modify", "share", option, value)
    assert done.status == 251
    assert len(done.errors) == 1
    assert says in done.errors[0]
    assert f"['{option}']" in done.errors[0]
    assert "s3cr3t" not in done.printed
    assert (repository.path / ".dvc/config").read_text() == before


def test_a_remote_may_be_a_folder_of_another(pushed: Repository, place: Place):
    pushed.run("remote", "add", "sub", "remote://share/sub folder")
    pushed.run("push", "-r", "sub")
    assert objects(place.path / "sub folder") == objects(place.path)


def test_version_shows_smb(repository: Repository):
    for command in ("version", "doctor"):
        assert "smb (dvc-smb = " in repository.run(command)


def test_urls_beside_remotes(pushed: Repository, place: Place):
    """ls-url, get-url, import-url and update read files that are no objects of DVC's."""
    write(place.path / "raw")
    environment = ["--fs-config", "timeout=20"]
    listed = pushed.run("ls-url", place.url + "/raw", *environment).splitlines()
    assert {"plain.txt", "empty", "with space"} <= {line.strip() for line in listed}
    assert "plain.txt" in pushed.run("ls-url", "--recursive", place.url + "/raw/")

    pushed.run("get-url", place.url + "/raw", "copied")
    assert read(pushed.path / "copied") == CONTENT
    pushed.run("get-url", place.url + "/raw/with%20space/ü ñ 漢字 🙂.bin", "one.bin")
    assert (pushed.path / "one.bin").read_bytes() == CONTENT["with space/ü ñ 漢字 🙂.bin"]

    pushed.run("import-url", place.url + "/raw/plain.txt", "imported.txt")
    assert (pushed.path / "imported.txt").read_bytes() == b"plain\n"
    (place.path / "raw/plain.txt").write_bytes(b"newer\n")
    pushed.run("update", "imported.txt.dvc")
    assert (pushed.path / "imported.txt").read_bytes() == b"newer\n"
    pushed.run("import-url", "remote://share/raw/deep", "tree")
    assert read(pushed.path / "tree") == {"er/still/file #1 100% [x].dat": b"deep"}


def test_add_to_remote(repository: Repository, place: Place, tmp_path: Path):
    outside = tmp_path / "outside"
    write(outside)
    repository.run("add", str(outside), "--to-remote", "--out", "data")
    assert len(objects(place.path)) == 6
    assert not list(place.path.rglob("*.tmp"))
    assert not (repository.path / "data").exists()
    repository.run("pull")
    assert read(repository.path / "data") == CONTENT
    # From one folder of the share to the objects in another.
    write(place.path / "raw", {"a": b"in the share"})
    repository.run("add", place.url + "/raw/a", "--to-remote", "--out", "a")
    repository.run("pull")
    assert (repository.path / "a").read_bytes() == b"in the share"


def open_and_read(large: str) -> None:
    import dvc.api

    with dvc.api.open("data/large.bin", mode="rb") as file:
        file.seek(16)
        print(json.dumps({"sixteen": file.read(16).decode()}))
    print(json.dumps({"text": dvc.api.read("data/plain.txt"), "url": dvc.api.get_url("data/plain.txt")}))


def test_the_api_reads_from_the_share(pushed: Repository, place: Place):
    forget_cache(pushed)
    shutil.rmtree(pushed.path / "data")
    done = api(pushed, open_and_read, "")
    first, second = map(json.loads, done.out.splitlines())
    assert first == {"sixteen": "0123456789abcdef"}
    assert second["text"] == "plain\n"
    assert second["url"] == f"{place.url.replace('alice@', '')}/files/md5/" + "/".join(md5_parts(b"plain\n"))
    assert not (pushed.path / ".dvc/cache/files/md5" / "/".join(md5_parts(CONTENT["large.bin"]))).exists()


def md5_parts(data: bytes) -> tuple[str, str]:
    digest = hashlib.md5(data).hexdigest()
    return digest[:2], digest[2:]


def api(repository: Repository, function: Callable[..., Any], *arguments: str) -> Done:
    done = run_forked(
        function,
        *arguments,
        folder=repository.path,
        environment=repository.variables,
        scratch=repository.home / "output",
    )
    assert done.status == 0, done.printed
    return done


def test_a_password_in_the_local_configuration(repository: Repository, place: Place):
    write(repository.path / "data", {"a": b"a"})
    repository.run("add", "--quiet", "data")
    repository.run("remote", "modify", "--local", "share", "password", place.server.password)
    done = repository.dvc("push", "-v", environment={"DVC_SMB_PASSWORD": "wrong"})
    assert done.status == 0, done.printed
    assert place.server.password not in done.printed
    assert "committed" not in done.printed


def test_a_committed_password_works_and_is_warned_about(repository: Repository, place: Place):
    write(repository.path / "data", {"a": b"a"})
    repository.run("add", "--quiet", "data")
    repository.run("remote", "modify", "share", "password", place.server.password)
    done = repository.dvc("push")
    assert done.status == 0, done.printed
    assert done.printed.count("the password of remote 'share' is in .dvc/config, which is committed") == 1
    assert place.server.password not in done.printed


def test_a_password_from_a_mounted_secret(repository: Repository, place: Place, tmp_path: Path):
    write(repository.path / "data", {"a": b"a"})
    repository.run("add", "--quiet", "data")
    (tmp_path / "secret").write_text(place.server.password + "\n")
    variables = {"DVC_SMB_PASSWORD": "", "DVC_SMB_PASSWORD_FILE": str(tmp_path / "secret")}
    repository.run("push", environment=variables)
    assert len(objects(place.path)) == 2


def test_a_password_is_asked_for_once_on_a_terminal(pushed: Repository, place: Place):
    pushed.run("remote", "modify", "share", "ask_password", "true")
    dvc = [sys.executable, "-c", "import dvc_smb._hook, sys; from dvc.cli import main; sys.exit(main(sys.argv[1:]))"]
    variables = {name: value for name, value in pushed.variables.items() if name != "DVC_SMB_PASSWORD"}
    question = f"Password of {place.server.user} at {place.server.host}:{place.server.port}: "

    def pull(answer: str) -> tuple[int, str]:
        forget_cache(pushed)
        shutil.rmtree(pushed.path / "data", ignore_errors=True)
        return answer_on_terminal([*dvc, "pull"], pushed.path, variables, question, answer)

    status, shown = pull("not this one")
    assert status != 0
    assert "password" in shown.removeprefix(question)
    status, shown = pull(place.server.password)
    assert status == 0, shown
    assert shown.count("Password of") == 1
    assert read(pushed.path / "data") == CONTENT
