"""Events that a stage writes while it runs (see :mod:`ml.events`), as a log shows them."""

from __future__ import annotations

from typing import Any

from tasks.durations import duration
from tasks.numbers import number

_UNTOLD = ("precision", "recall", "lr", "seconds")
"""Numbers of an epoch that a log line leaves to the tracker's charts."""


def told(event: dict[str, Any]) -> str | None:
    """Return an event as one line for a log, or None for one that comes too often to be logged."""
    left = event.get("eta_s")
    eta = f", {duration(left)} left" if left else ""
    if event["kind"] == "epoch":
        shown = {name.removesuffix("_loss"): value for name, value in event["metrics"].items() if name not in _UNTOLD}
        metrics = "  ".join(f"{name} {number(value)}" for name, value in shown.items())
        return f"epoch {event['epoch']}/{event['epochs']}  {metrics}{eta}"
    if event["kind"] == "note":
        return str(event["message"])
    return None
