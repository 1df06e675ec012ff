"""What a step would change, by facts that a test knows of its machine."""

from __future__ import annotations

from collections.abc import Iterable

from infra.machines.commands import Command
from infra.site.facts import Fact, Reading
from infra.site.step import Change, Step


def found(step: Step, known: dict[Fact, Reading] | None = None) -> list[Change]:
    """Return the step's changes; what it asks besides ``known``, of other machines as well, failed."""
    known = known or {}
    readings = {fact: known.get(fact, Reading(1, "")) for fact in step.facts}
    readings |= {fact: known.get(fact, Reading(1, "")) for fact in step.asks(readings)}
    assert set(known) <= set(readings)
    return list(step.changes(readings))


def fact(step: Step, word: str) -> Fact:
    """Return the first question of the step with ``word`` in its command."""
    return next(item for item in step.facts if word in " ".join(item.argv))


def commands(changes: Iterable[Change]) -> str:
    """Return the commands of changes, a line each."""
    actions = [action for change in changes for action in change.actions]
    return "\n".join(" ".join(action.argv) for action in actions if isinstance(action, Command))
