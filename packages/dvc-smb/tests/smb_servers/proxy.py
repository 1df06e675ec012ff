"""A TCP proxy on loopback that delays, cuts, swallows and alters what passes between clients and a server.

``Proxy`` runs in a thread of the test. A benchmark runs it as a process, which takes no time from the client::

    python proxy.py PORT --delay 0.0025     # prints its own port; ends when its stdin ends
"""

from __future__ import annotations

import argparse
import contextlib
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

HOST = "127.0.0.1"
Direction = Literal["to_server", "to_client"]

# Bytes under way in one direction of one connection before it is read no further: over 1 GB/s at 5 ms.
_QUEUE_BYTES = 8 << 20
_READ_BYTES = 1 << 20
_RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Stream:
    """One direction of one connection."""

    source: socket.socket
    sink: socket.socket
    direction: Direction
    queue: deque[tuple[float, memoryview]] = field(default_factory=deque)
    queued: int = 0
    ended: bool = False


class Proxy:
    """Forwards connections to a port; ``start`` and ``stop`` it, or use it in a ``with``.

    The switches work at any time, from any thread, on open connections too. After a cut, new connections pass.

    Args:
        target_port: of the server, on loopback.
        delay: seconds that each byte takes each way; half of the round trip.
        port: to listen on; 0: a free one.

    Attributes:
        connections: how many were accepted so far.
        cuts: how often all connections were cut.
        flips: how many bits were flipped.
        bytes_to_server, bytes_to_client: forwarded so far.
    """

    host = HOST

    def __init__(self, target_port: int, delay: float = 0.0, port: int = 0) -> None:
        self.target_port = target_port
        self.delay = delay
        self.connections = 0
        self.cuts = 0
        self.flips = 0
        self.passed: dict[Direction, int] = {"to_server": 0, "to_client": 0}
        self._listener = socket.create_server((HOST, port), backlog=128)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._wake, self._woken = socket.socketpair()
        self._lock = threading.Lock()
        self._streams: list[_Stream] = []
        self._deaf: list[socket.socket] = []
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._cut_now = False
        self._countdown: int | None = None
        self._random: tuple[random.Random, int, int, int] | None = None
        self._flips: dict[Direction, list[tuple[int, int]]] = {"to_server": [], "to_client": []}
        self._black_hole = False

    def __enter__(self) -> Proxy:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bytes_to_server(self) -> int:
        """Bytes forwarded from clients to the server so far."""
        return self.passed["to_server"]

    @property
    def bytes_to_client(self) -> int:
        """Bytes forwarded from the server to clients so far."""
        return self.passed["to_client"]

    def start(self) -> Proxy:
        """Start forwarding in a thread."""
        self._thread = threading.Thread(target=self.run, name="smb-proxy", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Cut all connections and close the port."""
        self._stopping = True
        self._nudge()
        if self._thread is not None:
            self._thread.join(10)

    def cut(self) -> None:
        """Cut all connections now (TCP reset), with what is under way."""
        self._cut_now = True
        self._nudge()

    def cut_after(self, count: int) -> None:
        """Cut all connections after ``count`` more bytes, counted over both directions and all connections."""
        with self._lock:
            self._random = None
            self._countdown = count
        if count <= 0:
            self.cut()

    def cut_at_random(self, seed: int, low: int, high: int, times: int) -> None:
        """Cut all connections ``times`` times, each after ``low`` to ``high`` more bytes, drawn from ``seed``."""
        generator = random.Random(seed)
        with self._lock:
            self._countdown = generator.randint(low, high)
            self._random = (generator, low, high, times - 1)

    def cut_no_more(self) -> None:
        """Forget the cuts that are still to come."""
        with self._lock:
            self._countdown = self._random = None

    def black_hole(self, on: bool = True) -> None:
        """Accept connections and take bytes, but forward none and answer nothing; off: cut those connections."""
        with self._lock:
            self._black_hole = on
        if not on:
            self.cut()

    def flip(self, direction: Direction, after: int, bit: int = 0) -> None:
        """Flip one bit of the byte that follows ``after`` more bytes in this direction."""
        with self._lock:
            self._flips[direction].append((self.passed[direction] + after, bit))

    def flip_no_more(self) -> None:
        """Forget the flips that are still to come."""
        with self._lock:
            self._flips = {"to_server": [], "to_client": []}

    def run(self) -> None:
        """Forward until ``stop``. ``select`` for its time-out in microseconds: that of ``poll`` is in milliseconds."""
        try:
            while not self._stopping:
                self._turn()
        finally:
            self._close_all(reset=True)
            for endpoint in (self._listener, self._wake, self._woken):
                endpoint.close()

    def _turn(self) -> None:
        now = time.monotonic()
        readable: list[socket.socket] = [self._listener, self._woken, *self._deaf]
        writable: list[socket.socket] = []
        timeout: float | None = None
        for stream in self._streams:
            if not stream.ended and stream.queued < _QUEUE_BYTES:
                readable.append(stream.source)
            if stream.queue:
                wait = stream.queue[0][0] - now
                if wait <= 0:
                    writable.append(stream.sink)
                else:
                    timeout = wait if timeout is None else min(timeout, wait)
        can_read, can_write, _ = select.select(readable, writable, [], timeout)
        if self._woken in can_read:
            self._woken.recv(4096)
        if self._cut_now:
            self._cut_now = False
            self._cut(reset=True)
            return
        if self._listener in can_read:
            self._accept()
        for endpoint in self._deaf:
            if endpoint in can_read:
                self._swallow(endpoint)
        ready_read, ready_write = set(can_read), set(can_write)
        for stream in list(self._streams):
            if stream.sink in ready_write:
                self._write(stream)
            if stream.source in ready_read:
                self._read(stream)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self.connections += 1
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._black_hole:
            self._deaf.append(client)
            return
        try:
            server = socket.create_connection((HOST, self.target_port), timeout=5)
        except OSError:
            _close(client, reset=True)
            return
        server.setblocking(False)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._streams += [_Stream(client, server, "to_server"), _Stream(server, client, "to_client")]

    def _swallow(self, endpoint: socket.socket) -> None:
        try:
            alive = bool(endpoint.recv(_READ_BYTES))
        except OSError:
            alive = False
        if not alive:
            self._deaf.remove(endpoint)
            endpoint.close()

    def _read(self, stream: _Stream) -> None:
        if stream.source.fileno() < 0:
            return
        try:
            data = stream.source.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._drop(stream, reset=True)
            return
        due = time.monotonic() + self.delay
        if not data:
            stream.ended = True
            stream.queue.append((due, memoryview(b"")))
        elif not self._black_hole:
            stream.queue.append((due, memoryview(data)))
            stream.queued += len(data)
            if not self.delay:
                self._write(stream)

    def _write(self, stream: _Stream) -> None:
        now = time.monotonic()
        while stream.queue and stream.queue[0][0] <= now and stream.sink.fileno() >= 0:
            due, data = stream.queue.popleft()
            if not data:
                # Reset for reset is not told apart: the other side only has to see an end.
                self._drop(stream, reset=False)
                return
            # Sent and counted at once: whoever has an answer may ask for a flip behind it.
            with self._lock:
                left = self._countdown
                data = self._flipped(stream.direction, data)
                try:
                    sent = stream.sink.send(data if left is None else data[:left])
                except BlockingIOError:
                    sent = 0
                except OSError:
                    sent = -1
                self.passed[stream.direction] += max(sent, 0)
                if self._countdown is not None:
                    self._countdown -= max(sent, 0)
            if sent < 0:
                self._drop(stream, reset=True)
                return
            stream.queued -= sent
            if left is not None and sent >= left:
                self._cut(reset=self._next_countdown())
                return
            if sent < len(data):
                stream.queue.appendleft((due, data[sent:]))
                return

    def _flipped(self, direction: Direction, data: memoryview) -> memoryview:
        """Return the bytes that come next in this direction, altered where that was asked for."""
        start = self.passed[direction]
        for position, bit in list(self._flips[direction]):
            if position < start + len(data):
                self._flips[direction].remove((position, bit))
                self.flips += 1
                altered = bytearray(data)
                altered[max(position - start, 0)] ^= 1 << bit
                data = memoryview(altered)
        return data

    def _next_countdown(self) -> bool:
        """Draw when the next cut comes; return whether this one is a reset, or an orderly end after a torn message."""
        with self._lock:
            if self._random is None:
                self._countdown = None
                return True
            generator, low, high, times = self._random
            reset = generator.random() < 0.5
            self._countdown = generator.randint(low, high) if times > 0 else None
            self._random = (generator, low, high, times - 1) if times > 0 else None
            return reset

    def _cut(self, reset: bool) -> None:
        self.cuts += 1
        self._close_all(reset)

    def _close_all(self, reset: bool) -> None:
        for stream in self._streams:
            _close(stream.source, reset)
            _close(stream.sink, reset)
        for endpoint in self._deaf:
            _close(endpoint, reset)
        self._streams, self._deaf = [], []

    def _drop(self, stream: _Stream, reset: bool) -> None:
        """Close one connection, both directions."""
        _close(stream.source, reset)
        _close(stream.sink, reset)
        self._streams = [other for other in self._streams if other.source.fileno() >= 0 and other.sink.fileno() >= 0]

    def _nudge(self) -> None:
        with contextlib.suppress(OSError):
            self._wake.send(b"!")


def _close(endpoint: socket.socket, reset: bool) -> None:
    if endpoint.fileno() >= 0:
        if reset:
            with contextlib.suppress(OSError):
                endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        endpoint.close()


@contextlib.contextmanager
def proxy_process(target_port: int, delay: float) -> Iterator[int]:
    """Run the proxy as a process; yields its port."""
    command = [sys.executable, str(Path(__file__).resolve()), str(target_port), "--delay", str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(10)


def main() -> None:
    """Run until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int, help="of the server, on loopback")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds each way")
    options = parser.parse_args()
    with Proxy(options.port, options.delay) as proxy:
        print(proxy.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
