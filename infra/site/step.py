"""What a step is: it reads facts of one machine and says what is still to be changed there, and why.

A step is data and one pure function: from readings to changes. Where nothing differs there is no change, so a second
run does nothing; after its changes are applied the facts are read again, and none may be left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from infra.machines.commands import Command, File, Removal, Upload
from infra.site.facts import Fact, Facts


@dataclass(frozen=True)
class Relay:
    """What one machine says is needed at another: a join token of the control plane, for one.

    Attributes:
        machine: whom to ask. command: what to ask there; its output may be secret and is shown to nobody.
        then: from that output, what is done at the step's own machine.
    """

    machine: str
    command: Command
    then: Callable[[str], tuple[Action, ...]]


Action = Command | File | Upload | Removal | Relay


@dataclass(frozen=True)
class Change:
    """Something that is not as it should be, and the actions that mend it, in order.

    Attributes:
        what: will be done, as ``restart smbd``. why: the fact that asks for it, as ``its configuration has changed``.
        diff: of a file that is no secret, as ``diff -u`` shows it.
        by_hand: not empty: what a person has to do, because it could lose data or is out of reach; nothing is done, or
            only the actions that wait whether it is still needed.
        undo: of a change that makes something which was not there, as a virtual machine: what removes it again, however
            far the actions came. Done when the step fails, or one that vouches for it; a scheduled check leaves such a
            change to a person.
        note: told, and no fault: it needs time, which a scheduled check does not have, or somebody else, whom a run
            without actions for it does not wait for.
    """

    what: str
    why: str
    actions: tuple[Action, ...] = ()
    diff: str = ""
    by_hand: str = ""
    undo: tuple[Action, ...] = ()
    note: bool = False

    @property
    def only_told(self) -> bool:
        """Whether somebody else brings it: a run has nothing to do for it and does not wait."""
        return self.note and not self.actions


def _no_more(_: Facts) -> Iterable[Fact]:
    return ()


@dataclass(frozen=True)
class Step:
    """One thing that a machine has to be or to do.

    Attributes:
        name: as ``storage``. machine: its name in the site.
        facts: read together, before and after.
        changes: pure; a fact that could not be read (a command not found) is a reading like any other.
        asks: pure; what the facts leave open and has to be read as well, of other machines too (:attr:`Fact.at`).
        after: steps, as (machine, name), that have to be done before.
        repairable: whether a scheduled check may apply it by itself.
        at: the machine that is asked and changed, where it is another one: the host of a virtual machine.
        boots_s: seconds that the machine may take to answer, because it is starting.
        vouches_for: steps whose new things are worth nothing if this one fails: they are undone then.
    """

    name: str
    machine: str
    facts: tuple[Fact, ...]
    changes: Callable[[Facts], Iterable[Change]] = field(repr=False)
    after: tuple[tuple[str, str], ...] = ()
    repairable: bool = True
    asks: Callable[[Facts], Iterable[Fact]] = field(default=_no_more, repr=False)
    at: str = ""
    boots_s: float = 0
    vouches_for: tuple[tuple[str, str], ...] = ()

    @property
    def where(self) -> str:
        """Return the machine that is asked and changed."""
        return self.at or self.machine
