"""Reads what steps ask of machines, and what the next steps ask together with what a step finds when it is done.

A look costs a session of ssh and a shell. What is read ahead is used while nothing has been done at the machine since.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from configs.problems import Problem, UserError
from infra.site.facts import FACT_TIMEOUT_S, NO_ANSWER, TIMED_OUT, Fact, Facts, Reading, facts_script, readings
from infra.site.reach import Reachable
from infra.site.step import Change, Relay, Step

SIDE_BY_SIDE = 16


class Looks:
    """The looks of one run at its machines; used from several threads.

    Args:
        machines: by name, all that steps name.
        following: for a step that is about to be done, those that only it keeps from running.
    """

    def __init__(self, machines: Mapping[str, Reachable], following: Callable[[Step], Iterable[Step]]) -> None:
        self._machines = machines
        self._following = following
        self._ahead: dict[tuple[str, str], tuple[int, dict[Fact, Reading]]] = {}
        self._doings: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def doing(self, step: Step, changes: Iterable[Change]) -> Iterator[None]:
        """While changes are applied: what was read of their machines before, or meanwhile, counts no more."""
        relays = {action.machine for change in changes for action in change.actions if isinstance(action, Relay)}
        touched = {step.where, *relays}
        self._done_at(touched)
        try:
            yield
        finally:
            self._done_at(touched)

    def read(self, step: Step, *, done: bool) -> Facts:
        """Return the readings of a step's facts, and of those that they leave open.

        Args:
            done: its changes have been applied; when nothing differs now, the next steps begin.

        Raises:
            UserError: the machine cannot be reached, its answers cannot be read, or it is too busy for what is quick.
        """
        facts = tuple(dict.fromkeys(step.facts))
        with self._lock:
            stamp, found = self._ahead.pop((step.machine, step.name), (-1, {}))
            before = self._doings[step.where]
        if stamp != before:
            following = self._next_here(step) if done else ()
            # A fact that both ask is asked twice: it may be another one once the first step's hold.
            then = tuple(dict.fromkeys(fact for other in following for fact in other.facts))
            found, later = _ask(step, self._machines[step.where], facts, then)
            with self._lock:
                for other in following:
                    self._ahead[other.machine, other.name] = before, {fact: later[fact] for fact in other.facts}
        _refuse_silence(step, found)
        more = self._left_open(step, found)
        _refuse_silence(step, more)
        return {**found, **more}

    def _next_here(self, step: Step) -> Sequence[Step]:
        return [other for other in self._following(step) if other.where == step.where and not other.boots_s]

    def _left_open(self, step: Step, found: Facts) -> Facts:
        more: dict[str, dict[Fact, None]] = {}
        for fact in step.asks(found):
            more.setdefault(fact.at or step.where, {})[fact] = None
        if not more:
            return {}
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            asked = [pool.submit(_ask_other, step, self._machines[name], tuple(facts)) for name, facts in more.items()]
        return {fact: reading for job in asked for fact, reading in job.result().items()}

    def _done_at(self, names: Iterable[str]) -> None:
        with self._lock:
            self._doings.update(names)


def _ask(
    step: Step, machine: Reachable, facts: Sequence[Fact], then: Sequence[Fact] = ()
) -> tuple[dict[Fact, Reading], dict[Fact, Reading]]:
    done = machine.script(facts_script(facts, then), FACT_TIMEOUT_S * max(1, len(facts) + len(then)))
    try:
        answers = readings(len(facts) + len(then), done.stdout)
    except ValueError as error:
        where = f"{step.machine}, step {step.name}"
        raise UserError(Problem(where, f"the machine's answers cannot be read: {error}", "run it again")) from None
    return dict(zip(facts, answers, strict=False)), dict(zip(then, answers[len(facts) :], strict=True))


def _refuse_silence(step: Step, found: Facts) -> None:
    remedy = "see what keeps the machine busy (`uptime`, `dmesg`), and run it again"
    problems = [
        Problem(f"{step.machine}, step {step.name}", f"{fact.quick} was not read within {FACT_TIMEOUT_S} s", remedy)
        for fact, reading in found.items()
        if fact.quick and reading.status == TIMED_OUT
    ]
    if problems:
        raise UserError(problems)


def _ask_other(step: Step, machine: Reachable, facts: Sequence[Fact]) -> dict[Fact, Reading]:
    """Ask another machine than the step's: that it does not answer is a fact as well."""
    try:
        return _ask(step, machine, facts)[0]
    except UserError as error:
        return dict.fromkeys(facts, Reading(NO_ANSWER, unreached=error.problems[0]))
