"""Gangs on this machine: real torchrun, real ranks, really killed."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from gangs import Followed, gang, ranks_of, run

from configs.problems import UserError
from infra.ddp.launch import Watch
from infra.ddp.torchrun import LocalLauncher
from ml.ddp.digits import draw
from ml.ddp.idx import IMAGES, write_idx

EPOCHS = 60
HOWS = ("raise", "exit", "kill")
BAD = """
import os, signal, sys, time
rank, how = int(os.environ["RANK"]), sys.argv[1]
print("here is rank", rank, flush=True)
if rank == 1:
    print("the last words", file=sys.stderr, flush=True)
    if how == "raise": raise ValueError("a banana is no learning rate")
    if how == "exit": sys.exit(3)
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)
"""
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(os.path.join(os.environ["MLOPS_OUTPUT"], os.environ["RANK"]), "w").close()
time.sleep(600)
"""


@pytest.fixture
def digits(tmp_path: Path) -> str:
    folder = tmp_path / "digits"
    folder.mkdir()
    for split, count in (("train", 160), ("t10k", 40)):
        write_idx(folder / f"{split}-{IMAGES}", draw(count, seed=0)[0])
    return str(folder)


def test_ranks_killed_again_and_again_end_as_if_nothing_had_happened(tmp_path: Path, digits: str) -> None:
    program = ("ml/ddp/autoencoder.py", "--data", digits, f"--epochs={EPOCHS}", "--batch=32", "--width=16")
    chance = random.Random(4)
    moments = sorted(chance.sample(range(2, EPOCHS - 50), 2))
    struck: set[int] = set()

    def kill(event: Mapping[str, Any]) -> None:
        pids = ranks_of("disturbed")
        if moments and event["epoch"] >= moments[0] and len(pids) == 2 and not struck & set(pids):
            moments.pop(0)
            struck.update(pids)
            os.kill(chance.choice(pids), signal.SIGKILL)

    with ThreadPoolExecutor() as beside:
        alone = beside.submit(run, tmp_path / "a", gang("undisturbed", *program))
        disturbed = run(tmp_path / "b", gang("disturbed", *program, max_restarts=9), kill)
    undisturbed = alone.result()
    assert undisturbed.outcome.failure is None
    assert [event["epoch"] for event in undisturbed.events] == list(range(1, EPOCHS + 1))
    assert disturbed.outcome.failure is None, disturbed.outcome.failure
    assert not moments
    assert disturbed.outcome.restarts == 2, "none fails but by us"
    assert any("was ended by SIGKILL" in note for note in disturbed.notes)
    assert any("going on after epoch" in line for line in disturbed.lines)
    first, second = (torch.load(tmp_path / name / "kept/output/model.pt") for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    kept = {path.name for path in (tmp_path / "b/kept/logs").iterdir()}
    assert {"all-ranks.log", "rank-0.attempt-0.stdout.log"} <= kept
    assert any(re.fullmatch(r"rank-0\.attempt-[1-9]\.stdout\.log", name) for name in kept), kept


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Followed]]:
    """Three gangs that ended, each in another way, beside each other; and the folder with a folder of each."""
    folder = tmp_path_factory.mktemp("broken")
    script = folder / "bad.py"
    script.write_text(BAD)
    gangs = {how: gang(f"bad-{how}", str(script), how, max_restarts=int(how == "exit")) for how in HOWS}
    with ThreadPoolExecutor() as beside:
        ended = {how: beside.submit(run, folder / how, training) for how, training in gangs.items()}
    return folder, {how: followed.result() for how, followed in ended.items()}


@pytest.mark.parametrize(
    ("how", "ended", "last"),
    [
        ("raise", "ended with exit code 1; its last lines:\n", "ValueError: a banana is no learning rate"),
        ("exit", "ended with exit code 3 after 1 restart; its last lines:\n", "the last words"),
        ("kill", "was ended by SIGKILL; its last lines:\n", "the last words"),
    ],
)
def test_the_error_names_the_rank_and_its_last_words(
    broken: tuple[Path, dict[str, Followed]], how: str, ended: str, last: str
) -> None:
    folder, gangs = broken
    problem = gangs[how].outcome.failure
    assert problem is not None
    assert problem.where == f"bad-{how}, rank 1"
    assert problem.what.startswith(ended)
    words = problem.what.splitlines()[1:]
    assert words.count("here is rank 1") == 1  # those of the last attempt
    assert last in words
    assert "here is rank 0" not in words
    assert "here is rank 0" in (folder / how / "kept/logs/all-ranks.log").read_text()


def test_a_gang_that_is_removed_leaves_no_rank_even_if_torchrun_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "stubborn.py"
    script.write_text(STUBBORN)
    training = gang("stubborn", str(script))
    launcher = LocalLauncher(tmp_path, tmp_path)
    launcher.launch(training)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "gangs/stubborn/output").glob("*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    ranks = ranks_of("stubborn")
    assert len(ranks) == 2
    parent = psutil.Process(ranks[0]).ppid()
    threading.Timer(0.5, os.kill, (parent, signal.SIGKILL)).start()
    outcome = launcher.follow(training, Watch(lambda event: None, lambda line: None))
    assert outcome.failure is not None
    assert "was ended by SIGKILL" in outcome.failure.what
    assert ranks_of("stubborn") == []
    launcher.remove(training)
    assert not (tmp_path / "gangs/stubborn").exists()


def test_more_gpus_than_the_machine_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs 400 GPUs"):
        LocalLauncher(tmp_path, tmp_path).launch(gang("greedy", "x.py", least=100, most=100, gpus=4))
