"""What goes wrong in the middle: kills, cancels, a tracker that is away. Nothing is lost, nothing left running."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from checkouts import check, environment, run
from sites import Site

pytestmark = pytest.mark.slow


@pytest.fixture
def long_recipe(site: Site) -> Iterator[str]:
    """A recipe of many epochs, so that there is time to interfere; another seed each time, so that it really trains."""
    text = (site.root / "configs" / "forklift.yaml").read_text()
    path = site.root / "configs" / "long.yaml"
    path.write_text(re.sub(r"seed: \d+", f"seed: {time.time_ns() % 10**9}", text).replace("epochs: 4", "epochs: 12", 1))
    yield "configs/long.yaml"
    path.unlink()


def follow(site: Site, recipe: str, until: str, act: Callable[[subprocess.Popen[str]], None]) -> tuple[int, str]:
    """Run the main job, act once its output holds ``until``, and return status and output."""
    process = subprocess.Popen(
        ["mlops", "train", recipe],
        cwd=site.root,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    said, acted = [], False
    for line in process.stdout:
        said.append(line)
        if until in line and not acted:
            acted = True
            act(process)
    return process.wait(), "".join(said)


def trainings(site: Site) -> list[psutil.Process]:
    """Return the training processes of the checkout."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if "ml.train" in (process.info["cmdline"] or []) and process.info["cwd"] == str(site.root):
            found.append(process)
    return found


def runs_of_versions(site: Site) -> dict[str, str]:
    """Return the runs of the model's versions, by the versions' numbers."""
    versions = site.mlflow("model-versions/search", filter="name = 'forklift'", max_results="50").get("model_versions")
    return {version["version"]: version["run_id"] for version in versions} if isinstance(versions, list) else {}


def epochs(site: Site, run_id: str) -> list[int]:
    """Return the epochs of a run that the tracker knows."""
    history = site.mlflow("metrics/get-history", run_id=run_id, metric_key="epoch/mAP50")["metrics"]
    assert isinstance(history, list)
    return [point["step"] for point in history]


def test_a_killed_training_fails_the_run_and_goes_on_with_the_next(site: Site, long_recipe: str) -> None:
    def kill(_: subprocess.Popen[str]) -> None:
        for process in trainings(site):
            process.kill()

    status, said = follow(site, long_recipe, "epoch 3/12", kill)
    assert status == 1, said
    assert "Traceback" not in said
    assert trainings(site) == []
    said = site.train(long_recipe)
    first = int(re.findall(r"epoch (\d+)/12", said)[0])
    assert first > 3, "it began anew"


def test_ctrl_c_cancels_within_half_a_minute_and_keeps_the_checkpoint(site: Site, long_recipe: str) -> None:
    pressed = 0.0

    def interrupt(process: subprocess.Popen[str]) -> None:
        nonlocal pressed
        pressed = time.monotonic()
        os.kill(process.pid, signal.SIGINT)

    status, said = follow(site, long_recipe, "epoch 2/12", interrupt)
    assert status == 130, said
    assert time.monotonic() - pressed < 30
    assert trainings(site) == []
    assert any((site.home / "training").rglob("*.ckpt"))


def test_a_tracker_that_is_away_fails_nothing_and_is_told_later(site: Site, long_recipe: str) -> None:
    def kill_tracker(_: subprocess.Popen[str]) -> None:
        psutil.Process(site.stack.parts["mlflow"].pid).kill()

    known = runs_of_versions(site)
    status, said = follow(site, long_recipe, "epoch 2/12", kill_tracker)
    assert status == 0, said
    assert "registered and judged when it is back" in said
    before = len(list((site.home / "tracking").glob("*/journal.jsonl")))
    assert before == 1

    check(site.root, "mlops", "up")
    site.train()
    assert list((site.home / "tracking").glob("*/journal.jsonl")) == []
    # With that of the second training, where none before was like it.
    new = runs_of_versions(site).items() - known.items()
    assert list(range(1, 13)) in [epochs(site, run_id) for _, run_id in new]


def test_down_leaves_nothing_running_and_up_finds_all_again(site: Site) -> None:
    known = site.mlflow("model-versions/search", max_results="100")
    check(site.root, "mlops", "down")
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] and Path(process.info["cwd"]).is_relative_to(site.root)
    ]
    assert left == []
    assert run(site.root, "mlops", "status").returncode == 0
    check(site.root, "mlops", "up")
    assert site.mlflow("model-versions/search", max_results="100") == known
