"""What a user is told when something is wrong: where, what, and what would be right.

Every error that a person can cause or mend is a :class:`UserError`. It carries all problems found, not only the
first, is printed without a traceback, and holds no secrets.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        where: the file, with line and key where there are any (``configs/forklift.yaml:7 train.epochs``).
        what: what is wrong there.
        remedy: what would be right, or what to do.
    """

    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"\n    -> {self.remedy}" if self.remedy else "")


class UserError(Exception):
    """One or more problems, collected. ``str()`` gives them all, one below the other."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)

    __repr__ = __str__


def run_main(main: Callable[[], int | None]) -> None:
    """Run a command's ``main`` and leave the process: 0 or its status, 1 for a ``UserError``, 130 for Ctrl-C."""
    try:
        sys.exit(main() or 0)
    except UserError as error:
        count = len(error.problems)
        print("error:" if count == 1 else f"{count} errors:", file=sys.stderr)
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def printed_error(lines: Sequence[str]) -> list[str]:
    """Return the error among the lines that a command under :func:`run_main` printed; none: an empty list."""
    heads = [index for index, line in enumerate(lines) if re.fullmatch(r"error:|\d+ errors:", line)]
    return list(lines[heads[-1] + 1 :]) if heads else []
