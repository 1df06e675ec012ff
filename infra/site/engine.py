"""Runs steps: reads, says what differs, applies it, and reads again until nothing differs.

Steps of machines that do not wait for each other run side by side. A step that fails stops those that come after it,
and no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from enum import StrEnum
from graphlib import TopologicalSorter

from configs.problems import Problem, UserError
from infra.site.acting import make, undo
from infra.site.looks import SIDE_BY_SIDE, Looks
from infra.site.reach import Reachable
from infra.site.step import Change, Step

Key = tuple[str, str]
"""A step: its machine and its name."""

ROUNDS = 4
_LOOK = "look at the machine: journalctl -b -p warning"


class State(StrEnum):
    """How far a step is."""

    WAITING = "waiting"
    READING = "reading"
    APPLYING = "applying"
    FITS = "fits"
    CHANGED = "changed"
    DIFFERS = "differs"
    FAILED = "failed"
    LEFT_OUT = "left out"


ENDED = frozenset({State.FITS, State.CHANGED, State.DIFFERS, State.FAILED, State.LEFT_OUT})


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    Attributes:
        changes: what was applied, or would be in a dry run; of a failed step, the last one may be half done.
        error: why it failed; None when it did not.
        began, ended: seconds since the run's start.
    """

    state: State
    changes: tuple[Change, ...] = ()
    error: UserError | None = None
    began: float = 0.0
    ended: float = 0.0


Report = Callable[[Step, State, str], None]
"""Told at each change of state: the step, its state, and what it does now or why it failed. May come from threads."""


def run_steps(
    steps: Sequence[Step],
    machines: Mapping[str, Reachable],
    report: Report,
    *,
    apply: bool,
    only_repairs: bool = False,
    keep: bool = False,
) -> dict[Key, Outcome]:
    """Run all steps, each as soon as those before it are done.

    Args:
        machines: by name, all that steps name.
        apply: False: only say what differs.
        only_repairs: apply what a check may mend by itself, and only say what else differs.
        keep: what a step has made new stays when it fails.

    Returns:
        For each step its outcome; a step after a failed one is ``LEFT_OUT``.
    """
    by_key = {(step.machine, step.name): step for step in steps}
    before = {key: _before(step, by_key, apply=apply) for key, step in by_key.items()}
    order = TopologicalSorter(before)
    order.prepare()
    outcomes: dict[Key, Outcome] = {}

    def following(done: Step) -> list[Step]:
        """The steps that wait for this one alone."""
        key = (done.machine, done.name)
        return [
            by_key[other]
            for other, waits in before.items()
            if key in waits and all(one == key or one in outcomes for one in waits)
        ]

    looks = Looks(machines, following)
    running: dict[Future[Outcome], Key] = {}
    start = time.monotonic()
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        while order.is_active():
            for key in order.get_ready():
                step = by_key[key]
                why = next(filter(None, (_stopped_by(other, outcomes[other], apply) for other in before[key])), "")
                if why:
                    outcomes[key] = Outcome(State.LEFT_OUT, began=_since(start), ended=_since(start))
                    report(step, State.LEFT_OUT, why)
                    order.done(key)
                    continue
                does = apply and (step.repairable or not only_repairs)
                job = pool.submit(_run_step, step, machines, looks, report, start, apply=does, makes=not only_repairs)
                running[job] = key
            if running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    key = running.pop(future)
                    outcomes[key] = future.result()
                    if outcomes[key].state is State.FAILED and not keep:
                        outcomes[key] = _undone(by_key[key], outcomes, by_key, machines, looks, report)
                    order.done(key)
    return {key: outcomes[key] for key in by_key}


def problems_of(outcomes: Mapping[Key, Outcome]) -> list[Problem]:
    """Return what went wrong in all steps, each problem once."""
    found = [problem for item in outcomes.values() if item.error for problem in item.error.problems]
    return list(dict.fromkeys(found))


def _run_step(
    step: Step,
    machines: Mapping[str, Reachable],
    looks: Looks,
    report: Report,
    start: float,
    *,
    apply: bool,
    makes: bool,
) -> Outcome:
    began = _since(start)
    applied: list[Change] = []

    def begun(change: Change) -> None:
        report(step, State.APPLYING, change.what)
        applied.append(change)

    try:
        machine = machines[step.where]
        report(step, State.READING, "")
        if apply and step.boots_s:
            machine.wait_until_reachable(step.boots_s, lambda why: report(step, State.READING, why))
        # Some facts mean something only when others hold: a login, once the server runs. So a step may take rounds.
        for _ in range(ROUNDS):
            changes = tuple(step.changes(looks.read(step, done=bool(applied))))
            notes = tuple(change for change in changes if change.only_told)
            pending = [change for change in changes if change not in notes]
            if not pending or not apply or (not makes and any(change.undo for change in pending)):
                state = State.CHANGED if applied else State.DIFFERS if pending else State.FITS
                told = (*applied, *notes) if applied else changes
                report(step, state, _told(told))
                return Outcome(state, told, began=began, ended=_since(start))
            _refuse_by_hand(step, pending)
            done_before = {(item.what, item.why) for item in applied}
            if all((item.what, item.why) in done_before for item in pending):
                break
            with looks.doing(step, pending):
                make(pending, machine, machines, begun, lambda line: report(step, State.APPLYING, line))
        raise UserError(
            [Problem(f"{step.machine}, step {step.name}", _still(item), item.by_hand or _LOOK) for item in pending]
        )
    except UserError as error:
        report(step, State.FAILED, str(error))
        return Outcome(State.FAILED, tuple(applied), error, began, _since(start))


def _still(change: Change) -> str:
    done = "waited for" if change.note or change.by_hand else "done"
    return f"was {done}, yet {change.why}: {change.what}"


def _refuse_by_hand(step: Step, changes: Iterable[Change]) -> None:
    problems = [
        Problem(f"{step.machine}, step {step.name}", f"{item.what}: {item.why}", item.by_hand)
        for item in changes
        if item.by_hand and not item.actions
    ]
    if problems:
        raise UserError(problems)


def _undone(
    step: Step,
    outcomes: Mapping[Key, Outcome],
    by_key: Mapping[Key, Step],
    machines: Mapping[str, Reachable],
    looks: Looks,
    report: Report,
) -> Outcome:
    """Undo what a failed step, and those that it vouches for, have made new; return its outcome and that."""
    key = (step.machine, step.name)
    done = [other for other in step.vouches_for if other in outcomes and outcomes[other].state is State.CHANGED]
    said: list[Problem] = []
    for other in (key, *done):
        changes = outcomes[other].changes
        with looks.doing(by_key[other], changes):
            said += undo(by_key[other], changes, machines, lambda line: report(step, State.FAILED, line))
    failed = outcomes[key]
    if not said or failed.error is None:
        return failed
    error = UserError([*failed.error.problems, *said])
    report(step, State.FAILED, str(error))
    return replace(failed, error=error)


def _before(step: Step, by_key: Mapping[Key, Step], *, apply: bool) -> list[Key]:
    """Return what a step waits for. A dry run changes nothing: it waits only for whether the machine is there."""
    if apply:
        return [key for key in step.after if key in by_key]
    return [] if step.at else [key for key, other in by_key.items() if other.at and other.machine == step.machine]


def _stopped_by(key: Key, outcome: Outcome, apply: bool) -> str:
    """Return why a step before keeps those after it from being run; empty: it does not."""
    differs = outcome.changes if outcome.state is State.DIFFERS else ()
    if any(change.undo or (change.actions and not apply) for change in differs):
        return f"{key[1]} of {key[0]} comes first"
    return f"{key[1]} of {key[0]} failed" if apply and outcome.state in (State.FAILED, State.LEFT_OUT) else ""


def _told(changes: Sequence[Change]) -> str:
    return "; ".join(change.what for change in changes)


def _since(start: float) -> float:
    return time.monotonic() - start
