"""Machines for the tests below: made once for each file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from lab import Lab, open_lab

NEEDED = ("systemd-nspawn", "mmdebstrap", "ip", "nsenter", "ssh", "ssh-keyscan", "ssh-keygen", "smbclient")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() or missing:
        pytest.skip(f"machines of systemd-nspawn need root and {', '.join(missing or NEEDED)}")
    with open_lab(tmp_path_factory.mktemp("lab") / "lab") as opened:
        yield opened
