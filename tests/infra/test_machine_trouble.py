"""What is said of a command that failed: a full disk is told as one, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.machines.trouble import Login, failure

LOGIN = Login("desk", "192.0.2.1", "admin", 22, Path("key"))
APT = "E: You don't have enough free space in /var/cache/apt/archives/."
DPKG = "dpkg: error processing archive a.deb (--unpack):\n failed to write (No space left on device)"


@pytest.mark.parametrize("said", [APT, DPKG, "cat: write error: No space left on device\n"])
def test_a_full_disk_is_one_line_with_what_to_do(said: str) -> None:
    (problem,) = failure(LOGIN, "`apt-get install` ended with 100", f"before\n{said}\nafter\n").problems
    assert problem.what.startswith("has no room left on its disk: `apt-get install` ended with 100: ")
    assert len(problem.what.splitlines()) == 1
    assert "make room" in problem.remedy


def test_other_failures_are_told_by_their_last_lines() -> None:
    (problem,) = failure(LOGIN, "`x` ended with 1", "one\ntwo\n").problems
    assert problem.what == "`x` ended with 1\n   | one\n   | two"
