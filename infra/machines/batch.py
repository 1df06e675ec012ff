"""Several short commands over one ssh session: each with its own input, time limit and last words, as if it were alone.

A session takes longer than most of what a step does by one. The commands run one after the other; the first that
fails is the last. A random mark before each tells its outputs from the others'; they travel by standard input, so no
process list shows them.
"""

from __future__ import annotations

import base64
import re
import secrets
import shlex
import time
from collections.abc import Callable, Sequence

from infra.machines.commands import Command, File, Removal
from infra.machines.exchange import KILL_AFTER_S

Quick = Command | File | Removal
WRITE_S = 120

# The name appears with its content, mode and group, or not at all; what a killed run left is written over. Steps side
# by side may want the same file, as VMs that of their hypervisor's unit: a lock of its folder, which leaves nothing.
_WRITE = """\
set -e
umask 022
folder="${1%/*}"
[ -d "$folder" ] || mkdir -p "$folder"
exec 9<"$folder"
flock 9
umask 077
draft="$1.mlops-new"
[ ! -e "$draft" ] && [ ! -h "$draft" ] || rm -f "$draft"
cat >"$draft"
chgrp "$3" "$draft"
chmod "$2" "$draft"
sync "$draft"
target="$1"
shift 3
for mark; do install -D /dev/null "$mark"; done
mv -fT "$draft" "$target"
"""

# When the connection is gone or the time is up, the command that runs is ended, with all that it has started.
_BEGIN = """\
job=
trap 'kill "$job" 2>/dev/null; exit 143' TERM
"""


class Batch:
    """One session's commands, and what was heard of them.

    Args:
        on_begin: told the number of each command, from 0, as it begins. on_line: gets each line of their outputs.

    Attributes:
        commands: what is done. script: for the standard input of ``sh``.
        limit_s: seconds that all of them may take.
        at: the number of the one that runs, or was the last to.
    """

    def __init__(
        self, actions: Sequence[Quick], on_begin: Callable[[int], None], on_line: Callable[[str], None]
    ) -> None:
        self.commands = [_command(action) for action in actions]
        self._mark = secrets.token_hex(16)
        self._on_begin, self._on_line = on_begin, on_line
        self._began: dict[int, float] = {}
        self.script = _BEGIN + "".join(_part(self._mark, index, command) for index, command in enumerate(self.commands))
        self.limit_s = sum(command.timeout_s + KILL_AFTER_S for command in self.commands)
        self.at = 0

    def hear(self, line: str) -> None:
        """Take a line of either output."""
        before, found, after = line.partition(self._mark)
        if before or not found:
            self._on_line(before)
        words = after.split()
        # Each begins twice, on both outputs.
        if len(words) == 1 and int(words[0]) not in self._began:
            self.at = int(words[0])
            self._began[self.at] = time.monotonic()
            self._on_begin(self.at)

    @property
    def runs(self) -> Command:
        """Return the command that runs, or was the last to."""
        return self.commands[self.at]

    def seconds(self) -> float:
        """Return for how long the last one has run."""
        return time.monotonic() - self._began.get(self.at, time.monotonic())

    def failed(self, stdout: str) -> tuple[int, int] | None:
        """Return the number of the command that failed, with its status; None: they all ended well."""
        found = re.search(rf"{self._mark} (\d+) (\d+)", stdout)
        return (int(found[1]), int(found[2])) if found else None

    def said(self, index: int, *outputs: str) -> str:
        """Return what one of them has said, by the session's whole outputs."""
        begin = f"{self._mark} {index}\n"
        return "".join(output.partition(begin)[2].partition(self._mark)[0] for output in outputs)


def _command(action: Quick) -> Command:
    if isinstance(action, File):
        marks = map(str, action.marks)
        argv = ("sh", "-c", _WRITE, "sh", str(action.path), f"{action.mode:04o}", action.group, *marks)
        return Command(argv, stdin=action.text, timeout_s=WRITE_S)
    return Command(("rm", "-f", "--", str(action.path))) if isinstance(action, Removal) else action


def _part(mark: str, index: int, command: Command) -> str:
    begin = f"echo {mark} {index}"
    given = base64.b64encode(command.stdin.encode()).decode()
    feed, source = (f"printf %s {given} | base64 -d | ", "") if given else ("", " </dev/null")
    run = f"{feed}timeout -k {KILL_AFTER_S} {command.timeout_s:g} {shlex.join(command.argv)}{source} &"
    accepted = "|".join(map(str, sorted(command.accepted)))
    return f"""\
{begin}; {begin} >&2
{run}
job=$!; wait "$job"; status=$?
case $status in {accepted}) ;; *) echo {mark} {index} $status; exit 1 ;; esac
"""
