"""Every mistake in a recipe is told at once, with its line and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.problems import UserError
from configs.recipe import load_recipe

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("forklift*.yaml")), ids=lambda path: path.name)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert load_recipe(path).data.classes == ("forklift", "person")


def test_all_mistakes_come_at_once_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: Forklift\n"
        "data:\n"
        "  classes: [forklift, forklift]\n"
        "train:\n"
        "  epoch: 3\n"
        "  imgsz: 225\n"
        "  lr0: fast\n"
        "  seed: 1\n"
        "  seed: 2\n"
        "evaluation: {}\n"
    )
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    told = {problem.where.removeprefix(f"{path}:"): problem for problem in caught.value.problems}
    assert set(told) == {
        "10 evaluation",
        "1 name",
        "3 data.classes",
        "5 train.epoch",
        "6 train.imgsz",
        "7 train.lr0",
        "9 train.seed",
    }
    assert "epochs" in told["5 train.epoch"].remedy
    assert "evaluate" in told["10 evaluation"].remedy
    assert "32" in told["6 train.imgsz"].remedy
    assert "line 8" in told["9 train.seed"].what


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no keys"),
        ("name: [", "is no valid YAML"),
        ("name: forklift\n", "is missing"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        load_recipe(path)


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "forklift.yaml").touch()
    with pytest.raises(UserError, match=r"files there: forklift\.yaml"):
        load_recipe(tmp_path / "forklit.yaml")
