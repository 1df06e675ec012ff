"""The main job with its share on a real Samba server: nothing else is different."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkouts import check, git, run
from sites import Site

from configs.storage import SmbStorage
from infra.repository.dvc import Dvc, Outcome
from infra.repository.share import open_share
from infra.repository.share_choice import parse_choice, remember
from smb_servers.smbd import Smbd

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smbd]:
    with Smbd(tmp_path_factory.mktemp("samba")) as smbd:
        yield smbd


@pytest.fixture(scope="module")
def recipe(site: Site) -> Iterator[str]:
    """A training that no other test has made: it has to be trained, and to come from this share elsewhere."""
    path = site.root / "configs" / "smb.yaml"
    text = (site.root / "configs" / "forklift.yaml").read_text()
    path.write_text(re.sub(r"seed: \d+", "seed: 445", text).replace("epochs: 4", "epochs: 2", 1))
    yield "configs/smb.yaml"
    path.unlink()


@pytest.fixture(scope="module")
def trained(site: Site, server: Smbd, recipe: str) -> Iterator[str]:
    """What the terminal showed of a training whose results go to the server."""
    yield check(
        *(site.root, "mlops", "train", recipe, "--share", server.url("dvc")), MLOPS_SHARE_PASSWORD=server.password
    )
    check(site.root, "mlops", "up", "--share", "site")


def test_the_share_is_told_and_holds_what_was_made(site: Site, server: Smbd, trained: str) -> None:
    assert f"Share: smb://127.0.0.1:{server.port}/sambashare/dvc as alice, kept for this checkout" in trained
    assert "train: epoch 2/2" in trained
    stored = server.path() / "dvc" / "files" / "md5"
    digest = re.findall(r"md5: (\w+)\.dir", (site.root / "data.dvc").read_text())[0]
    assert (stored / digest[:2] / f"{digest[2:]}.dir").is_file()
    assert any((server.path() / "dvc" / "runs").rglob("*")), "the run cache is there, too"


def test_the_choice_is_kept_and_nothing_is_trained_again(site: Site, trained: str, recipe: str) -> None:
    said = site.train(recipe)
    assert "as alice, kept for this checkout" in said
    assert "Nothing was trained" in said


def test_the_tracker_knows_the_share_without_its_account(site: Site, server: Smbd, trained: str) -> None:
    run_id = re.findall(r"/runs/([0-9a-f]{32})", trained.replace("\n", ""))[-1]
    found = site.mlflow("runs/get", run_id=run_id)["run"]
    assert isinstance(found, dict)
    # The run's tag: MLflow keeps one entry for a dataset, with the source under which it first saw it.
    tags = {tag["key"]: tag["value"] for tag in found["data"]["tags"]}
    assert tags["data.remote"] == f"smb://127.0.0.1:{server.port}/sambashare/dvc"


def test_another_clone_fetches_instead_of_training(
    site: Site, server: Smbd, trained: str, recipe: str, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    check(site.root, "git", "clone", "--quiet", str(site.root), str(clone))
    (clone / recipe).write_text((site.root / recipe).read_text())
    (clone / "params.yaml").write_text((site.root / "params.yaml").read_text())
    home = clone / ".mlops"
    chosen = parse_choice(server.url("dvc"), clone, home)
    assert isinstance(chosen, SmbStorage)
    remember(clone, home, chosen, server.password)
    with Dvc(clone) as dvc:
        dvc.connect(open_share(clone, home))
        dvc.pull("data.dvc")
        assert [dvc.reproduce(stage) for stage in ("validate", "train")] == [Outcome.FETCHED] * 2
    assert (clone / "models" / "model.pt").read_bytes() == (site.root / "models" / "model.pt").read_bytes()


def test_the_password_is_in_no_log_database_or_setting(site: Site, server: Smbd, trained: str) -> None:
    secret = server.password.encode()
    holding = [
        path.relative_to(site.root)
        for folder in (site.home, site.root / ".dvc")
        for path in folder.rglob("*")
        if path.is_file() and not path.is_relative_to(site.root / ".dvc" / "cache") and secret in path.read_bytes()
    ]
    assert holding == [Path(".mlops/secrets/share-password")]
    assert server.password not in trained
    assert server.password not in git(site.root, "diff", "HEAD")


@pytest.mark.parametrize(
    ("share", "password", "said"),
    [
        ("smb://alice@127.0.0.1:{port}/sambashare", "not-the-one", "user or password is wrong"),
        ("smb://alice@127.0.0.1:{port}/nosuch", None, "has no share 'nosuch'"),
        ("smb://alice:hunter2@127.0.0.1/sambashare", None, "leave the password out"),
    ],
)
def test_a_share_that_cannot_be_used_is_refused_before_anything_starts(
    site: Site, server: Smbd, trained: str, share: str, password: str | None, said: str
) -> None:
    before = {path: path.read_bytes() for path in (site.home / "share.json", site.home / "secrets" / "share-password")}
    secret = password or server.password
    done = run(*(site.root, "mlops", "train", "--share", share.format(port=server.port)), MLOPS_SHARE_PASSWORD=secret)
    assert done.returncode == 1
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr
    assert secret not in done.stdout + done.stderr
    assert {path: path.read_bytes() for path in before} == before
