"""The workers of a gang by name, as one of them sees them: who has an address, and whether the host answers."""

from __future__ import annotations

import socket


class Peers:
    """The names of a gang's workers; the first hosts the rendezvous."""

    def __init__(self, pattern: str, most: int, port: int) -> None:
        """``pattern`` has ``{}`` in place of the index; ``port`` is the rendezvous' one."""
        self._names = [pattern.format(index) for index in range(most)]
        self._port = port

    def name(self, index: int) -> str:
        """Return the name of a worker."""
        return self._names[index]

    def missing(self) -> list[int]:
        """Return the indexes of workers whose names have no address, yet or any more."""
        return [index for index, name in enumerate(self._names) if not _has_address(name)]

    def host_trouble(self) -> str | None:
        """Return why the host of the rendezvous cannot be reached now, None when it can."""
        try:
            with socket.create_connection((self._names[0], self._port), timeout=5):
                return None
        except socket.gaierror:
            return "worker 0, which hosts the rendezvous, has no address"
        except OSError as error:
            return f"worker 0, which hosts the rendezvous, does not answer on port {self._port}: {error}"


def _has_address(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, None))
    except OSError:
        return False
