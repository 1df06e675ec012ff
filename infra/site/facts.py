"""What is read of a machine: each fact is what one command says, and all of a step's facts are read in one go.

A :class:`Fact` is a question, a :class:`Reading` its answer. Parsers for the common ones (files, packages, units) are
in modules beside this one; they are pure, so steps are tested by readings in and changes out.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from configs.problems import Problem

FACT_TIMEOUT_S = 20
TIMED_OUT = 124
"""Status of a question that was not answered within :data:`FACT_TIMEOUT_S`."""
NO_ANSWER = 255
"""Status of what was asked of a machine that could not be reached, as of ssh."""


@dataclass(frozen=True)
class Fact:
    """A command for root that changes nothing.

    Attributes:
        stdin: for secrets; never in ``repr`` or ``argv``.
        at: the machine that is asked, where it is another one than the step's.
        quick: what it asks for, as a file, where that is always read at once: on a machine too busy to say it in time
            nothing follows from its silence, and a step must not take it for absent. Empty: silence is an answer.
    """

    argv: tuple[str, ...]
    stdin: str = field(default="", repr=False)
    at: str = ""
    quick: str = field(default="", compare=False)


@dataclass(frozen=True)
class Reading:
    """What a machine answered: exit status, and standard output with standard error.

    Attributes:
        unreached: why the machine could not be asked; only of another machine than the step's.
    """

    status: int
    text: str = field(default="", repr=False)
    unreached: Problem | None = None

    @property
    def ok(self) -> bool:
        """Whether the command ended with 0."""
        return self.status == 0


Facts = Mapping[Fact, Reading]


# On the disk only where it cannot be in memory: a full one is a fact as well.
_BEGIN = """\
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
at=$(mktemp -d -p /run 2>/dev/null || mktemp -d) || exit
trap 'rm -rf "$at"' EXIT
trap 'exit 143' TERM
"""


def facts_script(facts: Sequence[Fact], then: Sequence[Fact] = ()) -> str:
    """Return a shell script that answers ``facts`` and ``then``: lines of an index, a colon and base 64.

    The latter holds output and exit status. It asks all of ``facts`` at the same time, and those of ``then`` when these
    have answered. It is meant for the standard input of ``sh``: what it holds is on no command line, there or here
    (``printf`` is a part of the shell).
    """
    lines = [_BEGIN]
    for index, fact in enumerate((*facts, *then)):
        if index == len(facts):
            lines.append("wait")
        given = base64.b64encode(fact.stdin.encode()).decode()
        feed = f"printf %s {given} | base64 -d | " if given else ""
        source = "" if given else " </dev/null"
        command = f"{feed}timeout {FACT_TIMEOUT_S} {shlex.join(fact.argv)} 2>&1{source}"
        lines.append(f"{{ {command}; printf '\\n%s' $?; }} | base64 -w0 >$at/{index} &")
    # One process for all: one for each took longer than most questions do.
    names = " ".join(map(str, range(len(facts) + len(then))))
    return "\n".join([*lines, "wait", f'cd "$at" && {{ grep -H "" {names} /dev/null || :; }}', ""])


def readings(count: int, output: str) -> list[Reading]:
    """Return the ``count`` readings of :func:`facts_script` in the order of its questions.

    Raises:
        ValueError: an answer is missing: the script did not run to its end.
    """
    found: list[Reading] = []
    for line in output.splitlines():
        number, _, encoded = line.partition(":")
        if len(found) == count or number != str(len(found)):
            raise ValueError(f"line {len(found) + 1} answers no question")
        text, _, status = base64.b64decode(encoded).decode("utf-8", "replace").rpartition("\n")
        found.append(Reading(int(status), text))
    if len(found) != count:
        raise ValueError(f"{count - len(found)} of {count} questions have no answer")
    return found
