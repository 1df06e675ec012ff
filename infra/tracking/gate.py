"""Whether a new model takes the champion's place. Pure: numbers in, verdict and reason out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

SHARE = "share"


@dataclass(frozen=True)
class Verdict:
    """``promote``: whether the challenger becomes champion; ``reason``: why, in one sentence for people."""

    promote: bool
    reason: str


def judge(
    challenger: Mapping[str, float],
    champion: Mapping[str, float] | None,
    metric: str,
    margin: float,
    same_test_split: bool = True,
    mode: str = SHARE,
) -> Verdict:
    """Promote the challenger if its ``metric`` is better than the champion's by more than ``margin``.

    Args:
        challenger: metrics on today's test split.
        champion: metrics of the champion, None if there is no champion.
        metric: which of them decides.
        margin: difference that must be exceeded; 0 means better at all, equal is never enough.
        same_test_split: whether the champion's metrics were taken on the same test split by the same rules. If not, it
            has to be evaluated again; until then nothing can be said, and nothing changes.
        mode: ``share``: the metric is between 0 and 1, more is better, 0 is worthless; ``max`` and ``min``: it is any
            number, and more or less is better.
    """
    new = challenger.get(metric)
    if new is None:
        return Verdict(False, f"refused: the new model has no {metric}")
    if not _sane(new, mode):
        kind = "a number from 0 to 1" if mode == SHARE else "a finite number"
        return Verdict(False, f"refused: {metric} of the new model is {new}, not {kind}")
    if new == 0 and mode == SHARE:
        return Verdict(False, f"refused: {metric} of the new model is 0, it finds nothing")
    if champion is None:
        return Verdict(True, f"first champion, {metric} {_shown(new)}")
    if not same_test_split:
        return Verdict(False, "not comparable: the champion was judged on another test split, evaluate it on this one")
    old = champion.get(metric)
    if old is None or not _sane(old, mode):
        shown = "missing" if old is None else old
        return Verdict(False, f"not comparable: {metric} of the champion is {shown}, evaluate it again")
    # Rounded, so that 0.52 is not "more than 0.02 better" than 0.50 for the sake of the last bit.
    gain = round(new - old if mode != "min" else old - new, 9)
    change = new - old
    told = f"{metric} {_shown(new)} against the champion's {_shown(old)} ({'+' if change >= 0 else ''}{_shown(change)})"
    if gain > margin:
        return Verdict(True, f"better: {told}")
    if margin and gain > 0:
        return Verdict(False, f"refused: {told}, not more than the margin of {margin:g}")
    return Verdict(False, f"refused: {told}, not better")


def _sane(value: float, mode: str) -> bool:
    return math.isfinite(value) and (mode != SHARE or 0 <= value <= 1)


def _shown(value: float) -> str:
    """Four decimals, or as many digits where these would show nothing."""
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.001 else f"{value:.4g}"
