"""git and DVC for real, in temporary repositories."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from configs.problems import UserError
from infra.repository import dvc, git

GRAPH = """\
stages:
  train:
    cmd: cat data/a.txt > model.txt && echo trained >> runs.log && test ! -e fail
    deps: [data]
    params:
      - recipe.yaml:
          - train
    outs: [model.txt]
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git and DVC repository with data, one stage and a share, all committed."""
    root = tmp_path / "checkout"
    root.mkdir()
    git.git(root, "init", "--quiet", "--initial-branch=main")
    git.git(root, "config", "user.name", "Tester")
    git.git(root, "config", "user.email", "tester@example.org")
    (root / "data").mkdir()
    (root / "data" / "a.txt").write_text("one\n")
    (root / "recipe.yaml").write_text("train: {epochs: 1}\n")
    (root / "dvc.yaml").write_text(GRAPH)
    (root / ".gitignore").write_text("/runs.log\n")
    with dvc.Dvc(root) as repo:
        assert repo.run("init", "--quiet")[0] == 0
        assert repo.run("remote", "add", "--quiet", "--default", "share", str(tmp_path / "share"))[0] == 0
        repo.add("data")
    git.git(root, "add", "--all")
    git.git(root, "commit", "--quiet", "-m", "first")
    return root


@pytest.fixture
def repo(checkout: Path) -> Iterator[dvc.Dvc]:
    with dvc.Dvc(checkout) as running:
        yield running


def clone(checkout: Path, target: Path) -> Path:
    git.git(checkout.parent, "clone", "--quiet", str(checkout), str(target))
    return target


def test_a_stage_runs_once_and_is_fetched_elsewhere(checkout: Path, repo: dvc.Dvc, tmp_path: Path) -> None:
    assert repo.reproduce("train") is dvc.Outcome.RAN
    assert repo.reproduce("train") is dvc.Outcome.UNCHANGED
    key = dvc.stage_key(checkout, "train")
    assert key is not None
    repo.push(run_cache=True)

    other = clone(checkout, tmp_path / "other")
    assert dvc.stage_key(other, "train") is None
    with dvc.Dvc(other) as elsewhere:
        assert elsewhere.pull("data.dvc") == 2, "the folder and the file in it"
        assert elsewhere.pull("data.dvc") == 0
        assert elsewhere.reproduce("train") is dvc.Outcome.FETCHED
    assert (other / "model.txt").read_text() == "one\n"
    assert not (other / "runs.log").exists(), "it was trained again"
    assert dvc.stage_key(other, "train") == key


def test_a_committed_lock_without_its_outputs_trains_again(checkout: Path, repo: dvc.Dvc, tmp_path: Path) -> None:
    # Other content than the data's: a file that is in the cache under any name would be found there.
    (checkout / "dvc.yaml").write_text(GRAPH.replace("cat data/a.txt", "rev data/a.txt"))
    repo.reproduce("train")
    git.commit_files(checkout, ["dvc.yaml", "dvc.lock"], "lock")
    other = clone(checkout, tmp_path / "other")
    (other / "data").mkdir()
    (other / "data" / "a.txt").write_text("one\n")
    with dvc.Dvc(other) as elsewhere:
        elsewhere.add("data")
        assert elsewhere.reproduce("train") is dvc.Outcome.RAN
    assert (other / "model.txt").read_text() == "eno\n"


def test_another_parameter_is_another_training(checkout: Path, repo: dvc.Dvc) -> None:
    repo.reproduce("train")
    before = dvc.stage_key(checkout, "train")
    (checkout / "recipe.yaml").write_text("train: {epochs: 2}\n")
    assert repo.reproduce("train") is dvc.Outcome.RAN
    assert dvc.stage_key(checkout, "train") != before


def test_force_runs_an_unchanged_stage(checkout: Path, repo: dvc.Dvc) -> None:
    repo.reproduce("train")
    assert repo.reproduce("train", force=True) is dvc.Outcome.RAN
    assert (checkout / "runs.log").read_text().count("trained") == 2


def test_a_failing_stage_says_its_own_last_words(checkout: Path, repo: dvc.Dvc) -> None:
    (checkout / "dvc.yaml").write_text(GRAPH.replace("test ! -e fail", "echo labels/7.txt, no such class; exit 3"))
    with pytest.raises(dvc.StageError) as caught:
        repo.reproduce("train")
    assert str(caught.value) == "stage train: labels/7.txt, no such class"


def test_an_empty_share_is_told(checkout: Path, tmp_path: Path) -> None:
    other = clone(checkout, tmp_path / "other")
    with dvc.Dvc(other) as elsewhere, pytest.raises(dvc.MissingDataError, match="publish"):
        elsewhere.pull("data.dvc")


def test_presence_follows_content(checkout: Path, repo: dvc.Dvc) -> None:
    assert repo.is_present("data.dvc")
    (checkout / "data" / "a.txt").write_text("two\n")
    assert not repo.is_present("data.dvc")


def test_stopping_a_stage_ends_it_and_the_next_command_works(checkout: Path, repo: dvc.Dvc) -> None:
    (checkout / "dvc.yaml").write_text(GRAPH.replace("cat data", "echo $$ > pid; sleep 600; cat data"))

    def stop_when_running() -> None:
        if (checkout / "pid").exists() and (checkout / "pid").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repo.reproduce("train", on_tick=stop_when_running)
    stage = int((checkout / "pid").read_text())
    # Ended, though its parent, which is gone, has not reaped it: somebody else does that when it comes to it.
    assert not psutil.pid_exists(stage) or psutil.Process(stage).status() == psutil.STATUS_ZOMBIE
    (checkout / "dvc.yaml").write_text(GRAPH)
    assert repo.reproduce("train") is dvc.Outcome.RAN


def test_a_folder_without_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.dvc: is missing"):
        dvc.tracked_digest(tmp_path)


def test_code_version_ignores_what_a_run_writes(checkout: Path) -> None:
    (checkout / "dvc.lock").write_text("schema: '2.0'\n")
    git.commit_files(checkout, ["dvc.lock"], "lock")
    (checkout / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    version = git.code_version(checkout)
    assert not version.dirty
    assert version.branch == "main"

    (checkout / "recipe.yaml").write_text("train: {epochs: 9}\n")
    (checkout / "ml").mkdir()
    (checkout / "ml" / "new.py").write_text("secret = 1\n")
    version = git.code_version(checkout)
    assert version.dirty
    assert "+train: {epochs: 9}" in version.diff
    assert version.unknown == ("ml/new.py",)
    assert "secret" not in version.diff


def test_a_dirty_tree_comes_back_in_a_worktree(checkout: Path, tmp_path: Path) -> None:
    (checkout / "recipe.yaml").write_text("train: {epochs: 9}\n")
    version = git.code_version(checkout)
    target = tmp_path / "worktree"
    git.add_worktree(checkout, version.commit, target)
    git.apply_patch(target, version.diff)
    assert (target / "recipe.yaml").read_text() == "train: {epochs: 9}\n"
    with pytest.raises(UserError, match="do not apply"):
        git.apply_patch(target, version.diff)
    git.remove_worktree(checkout, target)
    assert not target.exists()
    assert str(target) not in git.git(checkout, "worktree", "list")


def test_commit_takes_only_what_it_is_given(checkout: Path, repo: dvc.Dvc) -> None:
    (checkout / "recipe.yaml").write_text("train: {epochs: 9}\n")
    git.git(checkout, "add", "recipe.yaml")
    (checkout / "data" / "a.txt").write_text("two\n")
    repo.add("data")
    commit = git.commit_files(checkout, ["data.dvc"], "data: two")
    assert git.git(checkout, "show", "--name-only", "--format=", commit) == "data.dvc"
    assert git.git(checkout, "diff", "--cached", "--name-only") == "recipe.yaml"
    assert git.commit_files(checkout, ["data.dvc"], "again") == commit


def test_data_tags_count_up_and_are_found_by_content(checkout: Path) -> None:
    assert git.next_data_tag(checkout) == "data-v1"
    git.git(checkout, "tag", "data-v1")
    git.git(checkout, "tag", "data-v9")
    assert git.next_data_tag(checkout) == "data-v10"
    digest = dvc.tracked_digest(checkout)
    assert git.data_tag(checkout, "data.dvc", digest) == "data-v9"
    assert git.data_tag(checkout, "data.dvc", "0" * 32) is None


def test_outside_a_checkout_git_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", os.fspath(tmp_path.parent))
    with pytest.raises(UserError, match="run this inside the checkout"):
        git.find_root(tmp_path)
