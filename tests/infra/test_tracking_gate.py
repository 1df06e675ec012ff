"""When a challenger becomes champion, and what becomes of a diff."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from infra.tracking.diffs import MAX_CHARACTERS, presentable_diff
from infra.tracking.gate import judge


@pytest.mark.parametrize(
    ("new", "old", "margin", "promote"),
    [
        (0.51, 0.50, 0.0, True),
        (0.50, 0.50, 0.0, False),
        (0.49, 0.50, 0.0, False),
        (0.52, 0.50, 0.02, False),
        (0.5201, 0.50, 0.02, True),
        (1.0, 0.0, 0.99, True),
    ],
)
def test_only_better_by_more_than_the_margin_promotes(new: float, old: float, margin: float, promote: bool) -> None:
    verdict = judge({"mAP50": new}, {"mAP50": old}, "mAP50", margin)
    assert verdict.promote is promote
    assert f"{new:.4f}" in verdict.reason
    assert f"{old:.4f}" in verdict.reason


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -0.1, 1.1, 0.0])
@pytest.mark.parametrize("champion", [None, {"mAP50": 0.1}])
def test_a_model_without_a_sane_metric_is_never_promoted(
    value: float | None, champion: dict[str, float] | None
) -> None:
    metrics = {} if value is None else {"mAP50": value}
    verdict = judge(metrics, champion, "mAP50", 0.0)
    assert not verdict.promote
    assert "mAP50" in verdict.reason


def test_the_first_sane_model_is_champion() -> None:
    assert judge({"mAP50": 0.01}, None, "mAP50", 0.5).promote


@pytest.mark.parametrize("champion", [{}, {"mAP50": math.nan}, {"recall": 0.1}])
def test_a_champion_without_the_metric_cannot_be_compared(champion: dict[str, float]) -> None:
    verdict = judge({"mAP50": 0.9}, champion, "mAP50", 0.0)
    assert not verdict.promote
    assert verdict.reason.startswith("not comparable")


def test_another_test_split_cannot_be_compared() -> None:
    verdict = judge({"mAP50": 0.9}, {"mAP50": 0.1}, "mAP50", 0.0, same_test_split=False)
    assert not verdict.promote
    assert verdict.reason.startswith("not comparable")


def test_a_long_diff_keeps_what_fits_and_names_the_rest() -> None:
    small = "diff --git a/ml/a.py b/ml/a.py\n+x = 1\n"
    large = "diff --git a/data/b.csv b/data/b.csv\n" + "+1\n" * MAX_CHARACTERS
    last = "diff --git a/ml/c.py b/ml/c.py\n+y = 2\n"
    text = presentable_diff(small + large + last, {})
    assert small in text
    assert last in text
    assert "data/b.csv" in text
    assert len(text) < 500


def test_secrets_of_the_environment_are_masked_and_others_stay() -> None:
    diff = "diff --git a/a.py b/a.py\n+key = 'abcdef123'\n+home = '/home/ann'\n"
    text = presentable_diff(diff, {"HUB_API_KEY": "abcdef123", "HOME": "/home/ann", "EMPTY_TOKEN": ""})
    assert text == "diff --git a/a.py b/a.py\n+key = '***'\n+home = '/home/ann'\n"


def test_tracking_does_without_the_mlflow_package() -> None:
    """Importing it costs seconds that every flow and every command would pay."""
    code = "import sys, infra.tracking.tracker, infra.tracking.download, cli.lineage, cli.rollback; "
    code += "sys.exit(bool({'mlflow', 'torch', 'prefect'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("mode", "new", "old", "promoted"),
    [("min", 0.02, 0.03, True), ("min", 0.03, 0.02, False), ("max", 31.5, 30.0, True), ("min", 0.0, 1e-9, True)],
)
def test_numbers_of_any_size_and_those_of_which_less_is_better(
    mode: str, new: float, old: float, promoted: bool
) -> None:
    verdict = judge({"loss": new}, {"loss": old}, "loss", 0.0, mode=mode)
    assert verdict.promote is promoted
    assert f"({'-' if new < old else '+'}" in verdict.reason


def test_a_number_that_is_none_is_refused_in_every_mode() -> None:
    for mode in ("share", "min", "max"):
        assert not judge({"loss": float("nan")}, None, "loss", 0.0, mode=mode).promote
