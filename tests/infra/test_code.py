"""Code without git: what a run in a container knows of itself, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from configs.problems import UserError
from infra.repository import code, dvc_config, git, node_cache
from infra.repository.dvc import Dvc

VERSION = git.CodeVersion("c" * 40, "main", "A subject", "2026-01-02T03:04:05+00:00", "", ("ml/new.py",))


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The code of an image, with DVC's folder as git tracks it."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    root = tmp_path / "mlops"
    (root / "ml").mkdir(parents=True)
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("[core]\n    remote = share\n['remote \"share\"']\n    url = /nowhere\n")
    (root / "image.json").write_text(json.dumps(asdict(VERSION) | {"lock_sha256": "1", "built": "2026"}))
    return root


def test_an_image_tells_its_commit(image: Path) -> None:
    assert code.find_root(image / "ml") == image
    assert code.code_version(image) == VERSION
    assert code.code_version(image).dirty
    assert code.data_tag(image, "data.dvc", "1" * 32) is None


def test_a_checkout_is_asked_before_an_image_file_in_it(image: Path) -> None:
    git.git(image, "init", "--quiet", "--initial-branch=main")
    git.git(image, "config", "user.name", "Tester")
    git.git(image, "config", "user.email", "tester@example.org")
    git.git(image, "add", "--all")
    git.git(image, "commit", "--quiet", "-m", "first")
    assert code.find_root(image / "ml") == image
    assert code.code_version(image).subject == "first"
    code.need_checkout(image, "publishing")
    node_cache.set_up(image)
    assert not (image / ".dvc" / "config.local").exists()


def test_neither_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UserError, match="run this inside the checkout"):
        code.find_root(tmp_path)


@pytest.mark.parametrize("text", ["{}", "no JSON", '{"commit": 1}'])
def test_a_broken_image_file_says_what_to_do(image: Path, text: str) -> None:
    (image / "image.json").write_text(text)
    with pytest.raises(UserError, match="build the image again"):
        code.code_version(image)


def test_what_needs_git_is_refused_with_the_reason(image: Path) -> None:
    with pytest.raises(UserError, match="publishing a dataset: needs a git checkout, and a container image has none"):
        code.need_checkout(image, "publishing a dataset")


def test_dvc_works_without_git_from_the_node_s_cache(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv(node_cache.ENVIRONMENT, str(cache))
    node_cache.set_up(image)
    node_cache.set_up(image)
    assert dvc_config.cache_folder(image) == cache
    (image / "data").mkdir()
    (image / "data" / "a.txt").write_text("one\n")
    with Dvc(image) as dvc:
        dvc.add("data")
        (image / "data" / "a.txt").unlink()
        assert dvc.run("checkout")[0] == 0
        assert dvc.is_present("data.dvc")
    linked = image / "data" / "a.txt"
    assert linked.is_symlink()
    assert linked.resolve().is_relative_to(cache)
    assert linked.read_text() == "one\n"


def test_a_cache_that_is_not_there_is_told(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(node_cache.ENVIRONMENT, str(tmp_path / "missing"))
    with pytest.raises(UserError, match="no folder that this run can write to"):
        node_cache.set_up(image)
