"""Every mistake in the file of a distributed training is told at once, with its line and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.ddp import DdpConfig, Workers, load_ddp
from configs.problems import UserError
from configs.quantity import parse_quantity

ROOT = Path(__file__).parents[2]
GOOD = "name: toy\nscript: toy.py\npromote: {metric: loss, mode: min}\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "toy.py").touch()
    return tmp_path


def load(checkout: Path, text: str) -> DdpConfig:
    (checkout / "ddp.yaml").write_text(text)
    return load_ddp("ddp.yaml", checkout)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("ddp*.yaml")), ids=lambda path: path.name)
def test_shipped_files_are_valid(path: Path, tmp_path: Path) -> None:
    for name in ("configs", "ml", "data.dvc"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "fashion-mnist.dvc").touch()  # which is not shipped: README tells how a user makes it
    config = load_ddp(path.relative_to(ROOT), tmp_path)
    assert config.workers.most >= 1


@pytest.mark.parametrize(
    ("written", "meant"),
    [("2", Workers(2, 2)), ("1:4", Workers(1, 4)), ('"1:4"', Workers(1, 4)), ("64", Workers(64, 64))],
)
def test_workers_are_a_number_or_a_range(checkout: Path, written: str, meant: Workers) -> None:
    assert load(checkout, f"{GOOD}workers: {written}\n").workers == meant


def test_a_module_is_started_as_one(checkout: Path) -> None:
    config = load(checkout, GOOD.replace("toy.py", "pip") + "arguments: [--lr, 0.1]\n")
    assert config.program == ("-m", "pip", "--lr", "0.1")


@pytest.mark.parametrize(("gpus", "processes", "count"), [(0, "auto", 1), (4, "auto", 4), (4, 2, 2), (0, 3, 3)])
def test_processes_of_a_worker(checkout: Path, gpus: int, processes: str | int, count: int) -> None:
    config = load(checkout, f"{GOOD}processes: {processes}\nworker: {{gpus: {gpus}}}\n")
    assert config.worker_processes == count


def test_memory_is_written_as_kubernetes_does(checkout: Path) -> None:
    sizes = [
        load(checkout, f"{GOOD}worker: {{memory: {size}}}\n").worker.memory for size in ("512Mi", "1.5Gi", "2G", 7)
    ]
    assert [int(parse_quantity(size)) for size in sizes] == [512 << 20, 3 << 29, 2_000_000_000, 7]
    for nothing in ("0", "500m", "-1Gi"):
        with pytest.raises(UserError, match="512Mi"):
            load(checkout, f"{GOOD}worker: {{memory: {nothing}}}\n")


def test_all_mistakes_come_at_once_with_their_lines(checkout: Path) -> None:
    text = (
        "name: Toy\n"
        "script: /tmp/toy.py\n"
        "worker:\n"
        "  cpu: 0\n"
        "  memory: much\n"
        "  gpu: 1\n"
        "workers: 4:1\n"
        "backend: mpi\n"
        "scheduler: {kind: kueue}\n"
        "checkpoints: ../elsewhere\n"
        "data: data\n"
        "max_restarts: -1\n"
        "environment: {RANK: 3}\n"
        "promote: {metric: loss, mode: less}\n"
    )
    with pytest.raises(UserError) as caught:
        load(checkout, text)
    told = {problem.where.removeprefix(f"{checkout}/ddp.yaml:"): problem for problem in caught.value.problems}
    assert set(told) == {
        "1 name",
        "2 script",
        "4 worker.cpu",
        "5 worker.memory",
        "6 worker.gpu",
        "7 workers",
        "8 backend",
        "9 scheduler.queue",
        "10 checkpoints",
        "11 data",
        "12 max_restarts",
        "13 environment",
        "14 promote.mode",
    }
    assert "gpus" in told["6 worker.gpu"].remedy
    assert "RANK" in told["13 environment"].remedy


def test_a_secret_is_refused_and_not_repeated(checkout: Path) -> None:
    with pytest.raises(UserError, match="API_TOKEN") as caught:
        load(checkout, f"{GOOD}environment: {{API_TOKEN: hunter2}}\n")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("backend: nccl\n", "nccl needs GPUs"),
        ("worker: {gpus: 1}\nprocesses: 2\n", "a GPU of its own"),
    ],
)
def test_settings_that_do_not_go_together(checkout: Path, more: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(checkout, GOOD + more)


def test_script_and_dataset_must_be_there(checkout: Path) -> None:
    (checkout / "fashion.dvc").touch()
    with pytest.raises(UserError) as caught:
        load(checkout, GOOD.replace("toy.py", "train.py") + "data: fashon.dvc\n")
    assert [problem.where for problem in caught.value.problems] == [
        f"{checkout}/ddp.yaml:2 script",
        f"{checkout}/ddp.yaml:4 data",
    ]
    assert "fashion.dvc" in caught.value.problems[1].remedy
