"""Choosing a recipe changes one line of params.yaml and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.problems import UserError
from tasks.job import select_recipe


def test_one_line_changes(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("# a comment\nrecipe: configs/forklift.yaml\nother: 1\n")
    select_recipe(tmp_path, "configs/forklift-photos.yaml")
    assert params.read_text() == "# a comment\nrecipe: configs/forklift-photos.yaml\nother: 1\n"


def test_without_the_line_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("other: 1\n")
    with pytest.raises(UserError, match="add the line"):
        select_recipe(tmp_path, "configs/forklift.yaml")
