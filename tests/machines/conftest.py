"""Machines for the tests below: made once for each file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from lab import Lab, open_lab

NEEDED = ("systemd-nspawn", "mmdebstrap", "ip", "nsenter", "ssh", "ssh-keyscan", "ssh-keygen", "smbclient")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "hypervisor" not in config.option.markexpr:
        skip = pytest.mark.skip(reason="emulated machines and hypervisors take many minutes: `make test-hypervisors`")
        for item in items:
            if item.get_closest_marker("hypervisor"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def machines_can_be_made() -> None:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() or missing:
        pytest.skip(f"machines of systemd-nspawn need root and {', '.join(missing or NEEDED)}")


@pytest.fixture(scope="module")
def lab(machines_can_be_made: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with open_lab(tmp_path_factory.mktemp("lab") / "lab") as opened:
        yield opened
