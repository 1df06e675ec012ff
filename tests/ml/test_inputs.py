"""What changes while a stage runs is not recorded as what it was made from: real DVC, real stages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkouts import check, small_checkout
from checkouts import run as run_in

from configs.problems import UserError
from ml.inputs import inputs_held

GRAPH = """\
stages:
  train:
    cmd: none
    deps: [data, code.py]
    params:
      - ${recipe}: [data.classes, train]
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.jpg").write_bytes(b"one")
    (tmp_path / "code.py").write_text("print(1)\n")
    (tmp_path / "recipe.yaml").write_text("data: {classes: [a]}\ntrain: {epochs: 3}\ndetect: {conf: 0.3}\n")
    return tmp_path


def changed(work: Path, file: str, text: str) -> str:
    """Change a file in the middle of a stage, and return what is said; empty if nothing."""
    try:
        with inputs_held("train", Path("recipe.yaml")):
            (work / file).write_text(text)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("recipe.yaml", "data: {classes: [a]}\ntrain: {epochs: 4}\n", "recipe.yaml train"),
        ("recipe.yaml", "data: {classes: [a, b]}\ntrain: {epochs: 3}\n", "recipe.yaml data.classes"),
        ("recipe.yaml", "train: [", "recipe.yaml data.classes, recipe.yaml train"),
        ("code.py", "print(2)\n", "code.py"),
        ("data/2.jpg", "two", "data/2.jpg"),
        ("data/1.jpg", "another", "data/1.jpg"),
    ],
)
def test_what_changed_is_named(work: Path, file: str, text: str, named: str) -> None:
    said = changed(work, file, text)
    assert said.startswith(f"{named}: changed while stage train ran")
    assert "put it back and run again" in said


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("recipe.yaml", "# a remark\ndata: {classes: [a]}\ntrain: {epochs: 3}\ndetect: {conf: 0.5}\n"),
        ("code.py", "print(1)\n"),
        ("other.py", "print(3)\n"),
    ],
)
def test_what_the_stage_does_not_depend_on_may_change(work: Path, file: str, text: str) -> None:
    assert changed(work, file, text) == ""


def test_many_files_are_counted(work: Path) -> None:
    def add() -> None:
        with inputs_held("train", Path("recipe.yaml")):
            for number in range(25):
                (work / "data" / f"{number:02}.jpg").write_bytes(b"new")

    with pytest.raises(UserError, match=r"data/09\.jpg, 15 more: changed"):
        add()


def test_an_error_of_the_stage_is_told_and_no_other(work: Path) -> None:
    def fail() -> None:
        with inputs_held("train", Path("recipe.yaml")):
            (work / "code.py").write_text("print(2)\n")
            raise KeyError

    with pytest.raises(KeyError):
        fail()


@pytest.mark.slow
def test_a_recipe_edited_during_a_training_is_not_recorded(tmp_path: Path) -> None:
    checkout = small_checkout(tmp_path / "checkout", train=24)
    recipe = checkout / "configs" / "forklift.yaml"
    before = recipe.read_text()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        ["dvc", "repro", "train"],
        cwd=checkout,
        env={**os.environ, "MLOPS_HOME": str(checkout / ".mlops"), "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if "epoch" in line and recipe.read_text() == before:
            recipe.write_text(re.sub(r"(?m)^(  seed:).*$", r"\1 77", before))
    assert process.wait(300) != 0, said
    assert "configs/forklift.yaml train: changed while stage train ran" in said
    lock = checkout / "dvc.lock"
    assert "  train:" not in lock.read_text()
    recipe.write_text(before)
    done = run_in(checkout, "dvc", "repro", "train")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  train:" in lock.read_text()
    assert "seed: 77" not in lock.read_text()
    assert "up to date" in check(checkout, "dvc", "status", "train")
