"""Does what changes ask for, and undoes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from configs.problems import Problem, UserError
from infra.machines.batch import Quick
from infra.machines.commands import Command, File, Removal, Upload
from infra.site.reach import Reachable
from infra.site.step import Action, Change, Relay, Step

QUICK_S = 120
"""A command that may take longer has a session of its own."""
Told = Callable[[str], None]


def make(
    changes: Sequence[Change],
    machine: Reachable,
    machines: Mapping[str, Reachable],
    on_change: Callable[[Change], None],
    on_line: Told,
) -> None:
    """Do what changes ask for at ``machine``, in order.

    Args:
        on_change: told each change once, before anything of it is done. on_line: gets the lines that commands print.

    Raises:
        UserError: something could not be done; what comes after it was not begun.
    """
    for row in _rows(changes):
        owners = [change for change in row for _ in change.actions]
        told: list[Change] = []

        def begin(index: int, owners: Sequence[Change] = owners, told: list[Change] = told) -> None:
            if not told or told[-1] is not owners[index]:
                told.append(owners[index])
                on_change(owners[index])

        act([action for change in row for action in change.actions], machine, machines, on_line, begin)


def act(
    actions: Sequence[Action],
    machine: Reachable,
    machines: Mapping[str, Reachable],
    on_line: Told,
    on_begin: Callable[[int], None] = lambda index: None,
) -> None:
    """Do actions at ``machine``, in order; those that take no time, and follow each other, over one session.

    Args:
        on_begin: told the number of each action, from 0, as it begins. on_line: gets the lines that commands print.

    Raises:
        UserError: one could not be done; those after it were not begun.
    """
    done = 0
    while done < len(actions):
        on_begin(done)
        quick = _quick(actions[done:])
        if quick:
            machine.run_all(quick, partial(_from, on_begin, done), on_line)
        else:
            _do(actions[done], machine, machines, on_line)
        done += len(quick) or 1


def undo(
    step: Step, changes: Iterable[Change], machines: Mapping[str, Reachable], on_line: Told
) -> tuple[Problem, ...]:
    """Undo what these changes of a step have made new, the last first; return what is to be said of it."""
    said = []
    for change in reversed([change for change in changes if change.undo]):
        where = f"{step.machine}, step {step.name}"
        try:
            act(change.undo, machines[step.where], machines, on_line)
        except UserError as error:
            what = f"could not be undone: {change.what}: {error.problems[0].what}"
            said.append(Problem(where, what, "run it again: it goes on with what is there"))
        else:
            said.append(Problem(where, f"was undone: {change.what}", "`--keep` leaves it as it is, to be looked at"))
    return tuple(said)


def _rows(changes: Iterable[Change]) -> Iterator[list[Change]]:
    """Yield changes that may share a session: not with one that is to be undone, however far the connection came."""
    row: list[Change] = []
    for change in changes:
        if row and (change.undo or row[-1].undo):
            yield row
            row = []
        row.append(change)
    if row:
        yield row


def _quick(actions: Iterable[Action]) -> list[Quick]:
    """Return those of the first actions that take no time."""
    found: list[Quick] = []
    for action in actions:
        if not isinstance(action, File | Removal) and not (isinstance(action, Command) and action.timeout_s <= QUICK_S):
            break
        found.append(action)
    return found


def _from(on_begin: Callable[[int], None], first: int, index: int) -> None:
    on_begin(first + index)


def _do(action: Action, machine: Reachable, machines: Mapping[str, Reachable], on_line: Told) -> None:
    if isinstance(action, Relay):
        # Without its lines: what is handed on may be secret.
        act(action.then(machines[action.machine].run(action.command).stdout), machine, machines, on_line)
    elif isinstance(action, Upload):
        machine.upload(action)
    elif isinstance(action, Command):
        machine.run(action, on_line=on_line)
