"""What to do about a run that is in trouble: a pure function of its diagnosis."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum, auto

from infra.kubernetes.diagnosis.record import Category, Diagnosis

PATIENCE = timedelta(seconds=30)
"""How long a trouble that cannot pass must last before a run that has not begun is failed: a name may be corrected, a
Secret made, and an image be pushed while the kubelet backs off."""
FIRST_DELAY_S, LONGEST_DELAY_S = 5.0, 120.0

RETRIED = frozenset(
    {
        Category.EVICTED,
        Category.NODE_LOST,
        Category.NODE_SHUTDOWN,
        Category.PREEMPTED,
        Category.POD_DELETED,
        Category.DISK_PRESSURE,
        Category.API_AWAY,
        Category.QUOTA,
        Category.PREFECT_UNREACHABLE,
    }
)
"""What a start on another node, or a little later, may be spared."""


class Action(Enum):
    """What becomes of the run."""

    NOTHING = auto()
    SHOW = auto()
    FAIL = auto()
    RETRY = auto()


def decide(found: Diagnosis, kind: str, lasted: timedelta, starts: int, retries: int) -> Action:
    """Return what to do.

    Args:
        kind: state type of the run, as PENDING.
        lasted: how long the trouble has been seen.
        starts: how often the run was started again already, by whomever.
        retries: how often it may be.
    """
    if kind == "CRASHED":
        if found.category is Category.UNKNOWN:
            return Action.NOTHING
        again = found.passing and found.category in RETRIED
        return Action.RETRY if again and starts < retries else Action.FAIL
    if kind == "PENDING":
        if found.passing:
            return Action.SHOW
        return Action.FAIL if lasted >= PATIENCE else Action.NOTHING
    return Action.NOTHING


def decide_on_past(found: Diagnosis, starts: int, retries: int) -> Action:
    """Return what to do about a run that goes on although its earlier Job ended by ``found``.

    A pod that gets SIGTERM asks for its run to be started again, whoever sent it: also when its time was up.
    """
    if found.category is Category.DEADLINE or (found.category in RETRIED and starts > retries):
        return Action.FAIL
    return Action.NOTHING


def delay_s(starts: int) -> float:
    """Return seconds before the next start; twice as many each time."""
    return float(min(FIRST_DELAY_S * 2**starts, LONGEST_DELAY_S))
