"""One command over one ssh session: input, output, status and end, so that neither side is left in doubt.

ssh exits with 255 for trouble of its own and for a command that does; it hangs as long as a daemon holds the output;
and a command without a terminal lives on when the connection goes. So a small shell script stands before the command:

- A random mark begins and ends both outputs, the end with the exit status. What shells print before is no output.
- The input comes whole, or the command does not begin: half a script or half a file is worse than none.
- Standard input stays open meanwhile. When it closes, since we stop or the connection is gone, the command's process
  group is ended; so it is by ``timeout`` when its time is up.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import selectors
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

KILL_AFTER_S = 5
"""A command that does not end when it is told to is killed after this."""
_LOCAL_GRACE_S = 10

# The mark comes by standard input: on the command line `ps` would print it in the middle of its output.
_SCRIPT = f"""\
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
read -r mark size limit
printf "%s\\n" "$mark"
printf "%s\\n" "$mark" >&2
input=$(head -c "$size")
[ "${{#input}}" -eq "$size" ] || exit 1
exec 3<&0
printf %s "$input" | base64 -d 2>/dev/null | timeout -k {KILL_AFTER_S} "$limit" "$@" 3<&- &
job=$!
{{ read -r stop <&3; kill "$job"; }} >/dev/null 2>&1 &
watch=$!
wait "$job"
status=$?
kill "$watch" 2>/dev/null
printf "%s %s\\n" "$mark" "$status"
printf "%s %s\\n" "$mark" "$status" >&2
"""


@dataclass(frozen=True)
class Outcome:
    """How a session ended.

    Attributes:
        begun: the machine's shell has answered. False: whatever was asked for has not been done.
        status: of the command, None when it did not come back.
        noise: what was printed before the command's own output: by ssh, sudo or a login shell.
        ssh_status: of ssh itself, when it ended before the command did.
        seconds: it took.
    """

    begun: bool
    status: int | None
    stdout: bytes
    stderr: bytes
    noise: str
    ssh_status: int | None
    seconds: float


def exchange(
    ssh: Sequence[str],
    root: Sequence[str],
    argv: Sequence[str],
    given: bytes,
    timeout_s: float,
    on_line: Callable[[str], None] | None = None,
    on_begin: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run ``argv`` on a machine.

    An exception from ``on_line``, KeyboardInterrupt included, ends the command before it goes on upwards.

    Args:
        ssh: the words up to the remote command. root: those that make a command root's, none where it is already.
        given: to standard input, at most some MB. timeout_s: after which the command is ended, with status 124.
        on_line: gets every line of both outputs as it comes. on_begin: called when the machine's shell has answered.
    """
    mark = secrets.token_hex(16)
    encoded = base64.b64encode(given)
    remote = shlex.join((*root, "sh", "-c", _SCRIPT, "mlops", *argv))
    payload = f"{mark} {len(encoded)} {timeout_s:g}\n".encode() + encoded
    streams = _Stream(mark.encode()), _Stream(mark.encode())
    began = time.monotonic()
    process = subprocess.Popen(
        [*ssh, remote],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,  # Ctrl-C is ours to hand on
    )
    ssh_status = None
    try:
        _pump(process, payload, streams, began + timeout_s + KILL_AFTER_S + _LOCAL_GRACE_S, on_line, on_begin)
        if any(stream.status is None for stream in streams):
            with contextlib.suppress(subprocess.TimeoutExpired):
                ssh_status = process.wait(1)
    finally:
        _end(process)
    out, error = streams
    noise = (bytes(error.noise) + bytes(out.noise)).decode("utf-8", "replace")
    status = error.status if out.status is not None else None
    seconds = time.monotonic() - began
    return Outcome(error.begun, status, bytes(out.output), bytes(error.output), noise, ssh_status, seconds)


class _Stream:
    """One of the two outputs, from the mark that begins it to the mark that ends it."""

    def __init__(self, mark: bytes) -> None:
        self.begun = False
        self.status: int | None = None
        self.output = bytearray()
        self.noise = bytearray()
        self._mark = mark
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was read, b"" at the end, and return the lines of output that are complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data and self._rest:
            lines, self._rest = [self._rest], b""
        shown = []
        for line in lines:
            before, found, after = line.partition(self._mark)
            if not self.begun:
                self.noise += before if found else line + b"\n"
                self.begun = bool(found)
            elif found:
                self.output += before
                self.status = int(after)
                shown += [before] if before else []
            elif self.status is None:
                self.output += line + b"\n"
                shown.append(line)
        return shown


def _pump(
    process: subprocess.Popen[bytes],
    payload: bytes,
    streams: tuple[_Stream, _Stream],
    deadline: float,
    on_line: Callable[[str], None] | None,
    on_begin: Callable[[], None],
) -> None:
    """Feed and read ssh until both outputs have come to their marks or ends, or the deadline has passed."""
    assert process.stdin is not None  # noqa: S101 - all three are pipes
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    left = memoryview(payload)
    os.set_blocking(process.stdin.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdin, selectors.EVENT_WRITE)
        for pipe, stream in zip((process.stdout, process.stderr), streams, strict=True):
            selector.register(pipe, selectors.EVENT_READ, stream)
        reading = 2
        while reading and time.monotonic() < deadline:
            for key, _ in selector.select(max(deadline - time.monotonic(), 0)):
                if key.data is None:
                    try:
                        left = left[os.write(key.fd, left[:65536]) :]
                    except BrokenPipeError:
                        left = left[:0]
                    if not left:
                        selector.unregister(key.fileobj)
                    continue
                data = os.read(key.fd, 65536)
                before = streams[1].begun
                shown = key.data.feed(data)
                if streams[1].begun and not before:
                    on_begin()
                for line in shown:
                    if on_line is not None:
                        # A carriage return redraws a line in a terminal: only its last state is worth keeping.
                        on_line(line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2])
                # A daemon that the command left behind may hold the output open: the mark is the end.
                if not data or key.data.status is not None:
                    selector.unregister(key.fileobj)
                    reading -= 1


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.terminate()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
