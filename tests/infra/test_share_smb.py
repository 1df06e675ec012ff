"""The share on a real Samba server: what can pass is told from what cannot, and ``doctor`` says what is wrong."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from checkouts import ROOT
from smb_terminal import answer_on_terminal

from configs.problems import UserError
from infra.findings import Finding
from infra.repository import git, share_check
from infra.repository.dvc import Dvc, MissingDataError, Outcome, ShareError
from infra.repository.share import open_share
from infra.repository.share_choice import parse_choice, remember
from smb_servers.smbd import Share as Section
from smb_servers.smbd import Smbd

SECTIONS = {
    "sambashare": Section(),
    "readonly": Section(read_only=True),
    "full": Section(size_limit=200_000),
}
GRAPH = "stages:\n  train:\n    cmd: rev data/a.txt > model.txt\n    deps: [data]\n    outs: [model.txt]\n"
DVC_CONFIG = "[core]\n    remote = share\n['remote \"share\"']\n    url = ../.mlops/share\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smbd]:
    with Smbd(tmp_path_factory.mktemp("samba"), SECTIONS) as smbd:
        yield smbd


def make_checkout(root: Path) -> Path:
    """A git and DVC repository with 400 kB of data and one stage, all committed."""
    (root / "data").mkdir(parents=True)
    (root / "data" / "a.txt").write_text("one\n")
    (root / "data" / "b.bin").write_bytes(bytes(range(250)) * 1600)
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text(DVC_CONFIG)
    (root / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (root / ".gitignore").write_text("/.mlops\n/data\n/model.txt\n")
    (root / "dvc.yaml").write_text(GRAPH)
    git.git(root, "init", "--quiet", "--initial-branch=main")
    git.git(root, "config", "user.name", "Tester")
    git.git(root, "config", "user.email", "tester@example.org")
    with Dvc(root) as dvc:
        dvc.add("data")
        dvc.reproduce("train")
    git.git(root, "add", "--all")
    git.git(root, "commit", "--quiet", "-m", "first")
    return root


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("checkouts") / "checkout")


@pytest.fixture(scope="module")
def dvc(checkout: Path) -> Iterator[Dvc]:
    with Dvc(checkout) as running:
        yield running


@pytest.fixture
def use(checkout: Path, dvc: Dvc, server: Smbd) -> Callable[..., Dvc]:
    """``use(url, password)`` makes that the checkout's share, as ``--share`` and the start of a job do."""

    def choose(url: str, password: str | None = None) -> Dvc:
        home = checkout / ".mlops"
        remember(checkout, home, parse_choice(url, checkout, home), password or server.password)
        dvc.connect(open_share(checkout, home))
        return dvc

    return choose


def refused(action: Callable[[], object]) -> UserError:
    """The error of something that will not pass: neither the share's absence nor an empty share."""
    with pytest.raises(UserError) as caught:
        action()
    assert not isinstance(caught.value, ShareError | MissingDataError), caught.value
    return caught.value


def test_results_go_out_and_come_back_elsewhere(
    use: Callable[..., Dvc], server: Smbd, checkout: Path, tmp_path: Path
) -> None:
    dvc = use(server.url("dvc"))
    with pytest.raises(MissingDataError):
        fetch_elsewhere(dvc, checkout)
    dvc.push(run_cache=True)
    objects = [path for path in (server.path() / "dvc" / "files" / "md5").rglob("*") if path.is_file()]
    assert len(objects) == 4, "two files, their folder, the model"
    assert all(path.parent.name + path.stem == md5(path) for path in objects), "in DVC's own layout, whole"

    other = tmp_path / "other"
    git.git(tmp_path, "clone", "--quiet", str(checkout), str(other))
    (other / "dvc.lock").unlink()
    home = other / ".mlops"
    remember(other, home, parse_choice(server.url("dvc"), other, home), server.password)
    with Dvc(other) as elsewhere:
        elsewhere.connect(open_share(other, home))
        elsewhere.pull("data.dvc")
        assert elsewhere.reproduce("train") is Outcome.FETCHED
    assert (other / "data" / "b.bin").read_bytes() == (checkout / "data" / "b.bin").read_bytes()


def fetch_elsewhere(dvc: Dvc, checkout: Path) -> None:
    """Fetch what is in the workspace, as if the cache were another machine's."""
    cache = checkout / ".dvc" / "cache"
    cache.rename(cache.with_name("aside"))
    try:
        dvc.pull("data.dvc")
    finally:
        shutil.rmtree(cache, ignore_errors=True)
        cache.with_name("aside").rename(cache)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_what_cannot_pass_is_not_tried_again_and_holds_no_secret(use: Callable[..., Dvc], server: Smbd) -> None:
    dvc = use(server.url("dvc"), "not the password")
    for action in (lambda: dvc.push("data.dvc"), lambda: fetch_elsewhere(dvc, dvc.root)):
        error = str(refused(action))
        assert "not the password" not in error
        assert "alice" in error
    for url, said in (
        (server.url("dvc", "nosuchshare"), "nosuchshare"),
        (server.url("dvc", "readonly"), "right"),
        (server.url("dvc", "full"), "full"),
        (f"smb://alice@no-such-host.invalid:{server.port}/sambashare", "no-such-host.invalid"),
    ):
        dvc = use(url)
        assert said in str(refused(lambda: dvc.push("data.dvc"))), url  # noqa: B023 called at once


def test_a_share_that_is_away_is_worth_another_try(use: Callable[..., Dvc], tmp_path: Path) -> None:
    with Smbd(tmp_path) as server:
        dvc = use(server.url("dvc"), server.password)
        server.kill()
        for action in (lambda: dvc.push("data.dvc"), lambda: fetch_elsewhere(dvc, dvc.root)):
            with pytest.raises(ShareError):
                action()
        server.start()
        dvc.push("data.dvc")


def test_a_worktree_uses_the_share_of_its_checkout(
    use: Callable[..., Dvc], server: Smbd, checkout: Path, tmp_path: Path
) -> None:
    use(server.url("worktrees")).push("data.dvc")
    before = (checkout / ".dvc" / "config.local").read_text()
    worktree = tmp_path / "worktree"
    git.add_worktree(checkout, "HEAD", worktree)
    with Dvc(worktree) as dvc:
        dvc.connect(open_share(checkout, checkout / ".mlops"))
        dvc.pull("data.dvc")
    assert (worktree / "data" / "a.txt").read_text() == "one\n"
    assert (checkout / ".dvc" / "config.local").read_text() == before
    git.remove_worktree(checkout, worktree)


def test_the_password_is_in_one_private_file(use: Callable[..., Dvc], server: Smbd, checkout: Path) -> None:
    use(server.url("dvc")).push("data.dvc")
    holding = [path for path in checkout.rglob("*") if path.is_file() and server.password.encode() in path.read_bytes()]
    assert holding == [checkout / ".mlops" / "secrets" / "share-password"]
    assert holding[0].stat().st_mode & 0o777 == 0o600


# What doctor says.


def looked_at(checkout: Path) -> dict[str, Finding]:
    return {result.name: result for result in share_check.check(checkout, checkout / ".mlops")}


def test_a_healthy_share_is_good_and_nothing_is_left_in_it(
    use: Callable[..., Dvc], server: Smbd, checkout: Path
) -> None:
    use(server.url("looked/at"))
    found = looked_at(checkout)
    assert {name: result.level for name, result in found.items()} == {
        "DVC remote": "good",
        "share space": found["share space"].level,
        "share speed": "good",
        "share clock": "good",
    }
    assert f"smb://127.0.0.1:{server.port}/sambashare/looked/at" in found["DVC remote"].detail
    assert "GiB free" in found["share space"].detail
    assert "MB/s up" in found["share speed"].detail
    assert not list(server.path().rglob(".mlops-doctor*"))


@pytest.mark.parametrize(
    ("share", "password", "what", "remedy"),
    [
        ("sambashare", "not-the-one", "alice", "MLOPS_SHARE_PASSWORD=... mlops up --share"),
        ("nosuchshare", None, "nosuchshare", ""),
        ("readonly", None, "while writing", ""),
        ("full", None, "full", "remove files"),
    ],
)
def test_what_is_wrong_is_told_with_its_remedy(
    use: Callable[..., Dvc], server: Smbd, checkout: Path, share: str, password: str | None, what: str, remedy: str
) -> None:
    use(server.url("dvc", share), password)
    found = looked_at(checkout)
    assert list(found) == ["DVC remote"]
    result = found["DVC remote"]
    assert result.level == "broken"
    assert what in result.detail
    assert result.remedy
    assert remedy in result.remedy
    assert "not-the-one" not in result.detail + result.remedy


def test_a_server_that_is_gone_is_told(use: Callable[..., Dvc], checkout: Path, tmp_path: Path) -> None:
    with Smbd(tmp_path) as server:
        use(server.url("dvc"), server.password)
    result = looked_at(checkout)["DVC remote"]
    assert result.level == "broken"
    assert f"127.0.0.1:{server.port}" in result.detail
    assert "server" in result.remedy


def test_the_password_of_a_share_is_asked_for_on_a_terminal_and_kept(
    server: Smbd, checkout: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(checkout, tmp_path / "checkout", symlinks=True))
    url = server.url("asked")
    choose = (
        "import sys; from pathlib import Path; from rich.console import Console; from cli.sharing import use_share;"
        "from configs.problems import run_main;"
        "run_main(lambda: use_share(sys.argv[1], Path.cwd(), Path('.mlops').absolute(), Console()))"
    )
    command = [sys.executable, "-c", choose, url]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "packages" / "dvc-smb")])}
    question = f"Password of {server.user} at {server.host}:{server.port}: "
    status, shown = answer_on_terminal(command, root, variables, question, "not this one")
    assert status == 1
    assert "nothing was changed" in shown
    assert "Traceback" not in shown
    status, shown = answer_on_terminal(command, root, variables, question, server.password)
    assert status == 0, shown
    assert f"/sambashare/asked as {server.user}, kept for this checkout" in shown
    kept = root / ".mlops" / "secrets" / "share-password"
    assert kept.read_text().strip() == server.password
    assert kept.stat().st_mode & 0o777 == 0o600
