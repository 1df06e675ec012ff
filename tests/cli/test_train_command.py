"""`mlops train` as far as it gets without servers; with them it is in tests/flows."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from stack_fixtures import ROOT, free_ports, make_checkout, mlops

from infra.stack.state import PREFECT, Part, Stack, save_stack


def test_a_server_that_does_not_answer_is_told_in_a_sentence(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    shutil.copytree(ROOT / "configs", checkout / "configs")
    ports = free_ports(2)
    save_stack(Stack(checkout / ".mlops", checkout, "127.0.0.1", *ports, parts={PREFECT: Part(os.getpid(), 0.0)}))
    failed = mlops(checkout, "train")
    assert failed.returncode == 1
    assert "Prefect: does not answer" in failed.stderr
    assert "-> start it: mlops up" in failed.stderr
    assert "Traceback" not in failed.stderr
