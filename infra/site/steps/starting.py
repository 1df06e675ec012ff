"""Since when a machine runs: what is missing there just after its start is no fault."""

from __future__ import annotations

from dataclasses import replace

from infra.site.facts import Fact, Facts

STARTS_S = 300
"""Seconds after a machine's start, or after its node was lost or came back, in which what is missing is starting."""
# Of its first process: in a container, the kernel has run for longer than the machine.
RUNS_S = Fact(("ps", "-o", "etimes=", "-p", "1"))


def runs_at(machine: str) -> Fact:
    """Ask another machine than the step's for :data:`RUNS_S`."""
    return replace(RUNS_S, at=machine)


def just_started(facts: Facts, asked: Fact = RUNS_S) -> bool:
    """Return whether a machine started a short while ago; of one that was not asked, or did not answer, it is unknown.

    Args:
        asked: of :func:`runs_at`; left out: the step's own machine.
    """
    return asked in facts and facts[asked].ok and int(facts[asked].text) < STARTS_S
