"""Machines for the tests below: made once for each file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab import Lab, open_lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with open_lab(tmp_path_factory.mktemp("lab") / "lab") as opened:
        yield opened
