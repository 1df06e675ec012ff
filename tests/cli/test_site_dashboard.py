"""``mlops site dashboard`` shows its token on a terminal, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_token_goes_into_no_file() -> None:
    command = [sys.executable, "-m", "cli", "site", "dashboard", "--admin"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert "its output is no terminal" in done.stderr
