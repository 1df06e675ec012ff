"""Fixtures with real servers; a ``conftest.py`` takes them by ``from smb_servers.fixtures import ...``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from smb_servers.proxy import Proxy
from smb_servers.smbd import Share, Smbd

SHARES = {
    "sambashare": Share(),
    "readonly": Share(read_only=True),
    "encrypted": Share(encrypt=True),
    "forbidden": Share(unix_user="nobody"),
}


@dataclass(frozen=True)
class Place:
    """An empty folder of one test in a share: ``path`` on the disk, ``name`` and ``url`` as clients see it."""

    server: Smbd
    name: str
    path: Path
    share: str = "sambashare"

    @property
    def url(self) -> str:
        """``smb://alice@127.0.0.1:port/sambashare/name``."""
        return self.server.url(self.name, self.share)

    @property
    def smb_path(self) -> str:
        """The path in the fsspec filesystem: ``/sambashare/name``."""
        return f"/{self.share}/{self.name}"


@pytest.fixture(scope="session")
def smbd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smbd]:
    """One hardened server for all tests, with the shares of ``SHARES``; never stop or kill it."""
    with Smbd(tmp_path_factory.mktemp("smbd"), SHARES) as server:
        yield server


@pytest.fixture
def place(smbd: Smbd, request: pytest.FixtureRequest) -> Place:
    """An empty folder in ``sambashare`` for this test alone."""
    name = re.sub(r"\W+", "-", request.node.name)[:60].strip("-")
    path = smbd.path() / name
    path.mkdir()
    return Place(smbd, name, path)


@pytest.fixture
def new_smbd(tmp_path: Path) -> Iterator[Callable[..., Smbd]]:
    """``new_smbd(shares=..., globals=...)`` starts a server of the test's own, stopped at its end."""
    servers: list[Smbd] = []

    def start(shares: dict[str, Share] | None = None, globals: dict[str, str] | None = None) -> Smbd:  # noqa: A002
        server = Smbd(tmp_path / f"smbd{len(servers)}", shares, globals)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def new_proxy() -> Iterator[Callable[..., Proxy]]:
    """``new_proxy(port, delay=...)`` starts a proxy in front of a server, stopped at the test's end."""
    proxies: list[Proxy] = []

    def start(port: int, delay: float = 0.0) -> Proxy:
        proxies.append(Proxy(port, delay).start())
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.stop()
