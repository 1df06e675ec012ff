"""Does what a change asks for, and undoes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from configs.problems import Problem, UserError
from infra.machines.commands import Command, File, Upload
from infra.site.reach import Reachable
from infra.site.step import Action, Change, Relay, Step

Told = Callable[[str], None]


def act(action: Action, machine: Reachable, machines: Mapping[str, Reachable], on_line: Told) -> None:
    """Do one action at ``machine``; ``on_line`` gets the lines that its command prints.

    Raises:
        UserError: it could not be done.
    """
    if isinstance(action, Command):
        machine.run(action, on_line=on_line)
    elif isinstance(action, File):
        machine.write(action)
    elif isinstance(action, Upload):
        machine.upload(action)
    elif isinstance(action, Relay):
        # Without its lines: what is handed on may be secret.
        said = machines[action.machine].run(action.command).stdout
        for following in action.then(said):
            act(following, machine, machines, on_line)
    else:
        machine.remove(action)


def undo(
    step: Step, changes: Iterable[Change], machines: Mapping[str, Reachable], on_line: Told
) -> tuple[Problem, ...]:
    """Undo what these changes of a step have made new, the last first; return what is to be said of it."""
    said = []
    for change in reversed([change for change in changes if change.undo]):
        where = f"{step.machine}, step {step.name}"
        try:
            for action in change.undo:
                act(action, machines[step.where], machines, on_line)
        except UserError as error:
            what = f"could not be undone: {change.what}: {error.problems[0].what}"
            said.append(Problem(where, what, "run it again: it goes on with what is there"))
        else:
            said.append(Problem(where, f"was undone: {change.what}", "`--keep` leaves it as it is, to be looked at"))
    return tuple(said)
