"""A distributed training as a user starts it: from a dataset version to a registered model, or to why it failed."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

import pytest
import yaml
from checkouts import check, git, run
from sites import Site

from infra.stack.environment import client_environment

pytestmark = pytest.mark.slow

BAD = "import os, sys\nif os.environ['RANK'] == '1':\n    print('no such banana')\n    sys.exit(3)\n"
SHOWN = """
import sys, uuid
from pathlib import Path
from rich.console import Console
from cli.following import FollowedRun
from cli.results import show_from_cluster
run = FollowedRun(uuid.UUID(sys.argv[1]), "", "COMPLETED", "", False)
show_from_cluster(run, Path(".mlops"), Console(), in_graph=False)
"""
"""What a terminal shows of a run whose folder it cannot see."""


def train(site: Site, config: str) -> str:
    """Run ``train-ddp/local`` to its end and return what the terminal showed."""
    command = ("prefect", "deployment", "run", "train-ddp/local", "--watch", "-p", f"config={config}")
    done = run(site.root, *command, timeout=400, **client_environment(site.home))
    return done.stdout + done.stderr


def write(site: Site, name: str, script: str, more: str = "") -> str:
    path = Path("configs") / f"ddp-{name}.yaml"
    text = f"name: {name}\nscript: {script}\nworkers: 2\nmax_restarts: 0\npromote: {{metric: loss, mode: min}}\n{more}"
    (site.root / path).write_text(text)
    return str(path)


def test_an_autoencoder_from_dataset_to_champion(site: Site) -> None:
    check(site.root, sys.executable, "-m", "ml.ddp.digits", "digits", "--train", "64", "--test", "32")
    check(site.root, "dvc", "add", "--quiet", "digits")
    name = f"digits-{uuid.uuid4().hex[:6]}"
    config = write(site, name, "ml/ddp/autoencoder.py", "arguments: [--epochs, 3, --batch, 16]\ndata: digits.dvc\n")
    git(site.root, "add", "--all")
    git(site.root, "commit", "--quiet", "-m", "Digits")
    said = train(site, config)
    assert "Completed" in said
    for line in ("train: epoch 3/3", "samples_per_s", f"{name}/1 is the new champion"):
        assert line in " ".join(said.split())

    version = site.mlflow("model-versions/get", name=name, version="1")["model_version"]
    assert isinstance(version, dict)
    tracked = site.mlflow("runs/get", run_id=version["run_id"])["run"]
    assert isinstance(tracked, dict)
    tags = {tag["key"]: tag["value"] for tag in tracked["data"]["tags"]}
    digest = yaml.safe_load((site.root / "digits.dvc").read_text())["outs"][0]["md5"]
    assert tracked["info"]["status"] == "FINISHED"
    assert tracked["inputs"]["dataset_inputs"][0]["dataset"]["digest"] == digest
    assert tags["git.commit"] == git(site.root, "rev-parse", "HEAD")
    assert tags["mlflow.source.name"] == "train-ddp"
    params = {param["key"]: param["value"] for param in tracked["data"]["params"]}
    assert params["workers"] == "2"
    history = site.mlflow("metrics/get-history", run_id=version["run_id"], metric_key="epoch/loss")["metrics"]
    assert isinstance(history, list)
    assert [point["step"] for point in history] == [1, 2, 3]
    for path, expected in (("logs", "logs/all-ranks.log"), ("model", "model/model.pt")):
        listed = site.mlflow("artifacts/list", run_id=version["run_id"], path=path)["files"]
        assert isinstance(listed, list)
        assert expected in {file["path"] for file in listed}
    assert "epoch 3/3" in (site.home / "runs" / tags["prefect.flow_run_id"] / "logs" / "all-ranks.log").read_text()
    assert list((site.home / "gangs").iterdir()) == []
    assert list((site.home / "checkpoints").glob(f"{name}-*")) == []

    shown = check(site.root, sys.executable, "-c", SHOWN, tags["prefect.flow_run_id"], **client_environment(site.home))
    assert f"{name}/1 is the new champion" in shown
    assert "in the MLflow run" in shown
    assert "dvc repro" not in shown, "it is no stage of the graph"


def test_a_failure_names_the_rank_and_its_last_words(site: Site) -> None:
    (site.root / "bad.py").write_text(BAD)
    said = " ".join(train(site, write(site, "bad", "bad.py")).split())
    assert "rank 1: ended with exit code 3" in said
    assert "no such banana" in said
    assert "Traceback" not in said
