"""The main job as a user runs it: from data to a registered model, again, refused, rolled back, made again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from checkouts import check, git, run
from sites import Site

from tasks.summary import Summary

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(site: Site) -> str:
    """What the terminal showed of the first training."""
    return site.train()


def last_summary(site: Site) -> Summary:
    folders = sorted((site.home / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime)
    summary = Summary.load(folders[-1])
    assert summary is not None
    return summary


def test_the_terminal_shows_what_came_of_it(site: Site, trained: str) -> None:
    for said in ("train: epoch 4/4", "mAP50-95", "forklift/1 is the new champion", "Prefect UI", "MLflow UI"):
        assert said in trained
    pictures = re.findall(r"(reports/\S+\.(?:png|jpg))", trained)
    assert len(pictures) >= 6
    assert all((site.root / picture).stat().st_size > 1000 for picture in pictures)


def test_a_client_elsewhere_reads_the_summary_of_the_run(site: Site, trained: str) -> None:
    found = site.prefect("artifacts/filter", artifacts={"key": {"any_": ["summary"]}}, sort="CREATED_DESC")
    assert isinstance(found, list)
    assert Summary.from_json(str(found[0]["data"])) == last_summary(site)


def test_the_run_tells_what_made_the_model(site: Site, trained: str) -> None:
    version = site.mlflow("model-versions/get", name="forklift", version="1")["model_version"]
    assert isinstance(version, dict)
    run_data = site.mlflow("runs/get", run_id=version["run_id"])["run"]
    assert isinstance(run_data, dict)
    tags = {tag["key"]: tag["value"] for tag in run_data["data"]["tags"]}
    digest = yaml.safe_load((site.root / "data.dvc").read_text())["outs"][0]["md5"]
    assert run_data["info"]["status"] == "FINISHED"
    assert run_data["inputs"]["dataset_inputs"][0]["dataset"]["digest"] == digest
    assert tags["git.commit"] == git(site.root, "rev-parse", "HEAD")
    assert tags["git.dirty"] == "no"
    params = {param["key"]: param["value"] for param in run_data["data"]["params"]}
    assert params["train.epochs"] == "4"
    assert params["threads"].isdigit()


def test_every_epoch_is_in_the_tracker(site: Site, trained: str) -> None:
    version = site.mlflow("model-versions/get", name="forklift", version="1")["model_version"]
    assert isinstance(version, dict)
    history = site.mlflow("metrics/get-history", run_id=version["run_id"], metric_key="epoch/mAP50")["metrics"]
    assert isinstance(history, list)
    assert [point["step"] for point in history] == [1, 2, 3, 4]


def test_the_report_stands_by_itself(site: Site, trained: str) -> None:
    text = (site.root / "reports" / "latest.md").read_text()
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert shown
    assert all((site.root / "reports" / picture).is_file() for picture in shown)
    artifacts = site.prefect("artifacts/filter", artifacts={"key": {"any_": ["report", "metrics", "training"]}})
    assert isinstance(artifacts, list)
    assert {artifact["key"] for artifact in artifacts} == {"report", "metrics", "training"}


def test_the_graph_is_up_to_date_without_any_server(site: Site, trained: str) -> None:
    assert "Data and pipelines are up to date." in check(site.root, "dvc", "repro")
    lock = yaml.safe_load((site.root / "dvc.lock").read_text())
    assert list(lock["stages"]) == ["validate", "train", "evaluate", "detect"]


def test_nothing_changed_reuses_the_earlier_run_here_although_commands_lead_to_a_cluster(
    site: Site, trained: str
) -> None:
    with site.connected():
        assert site.stack.prefect_url not in (site.root / ".env").read_text()
        said = site.train()
    assert site.stack.prefect_url in said
    assert "Nothing was trained: code, data and parameters are those of forklift/1." in said
    assert last_summary(site).trained == "unchanged"
    assert site.aliases() == {"champion": "1"}


def test_a_fresh_clone_fetches_instead_of_training(site: Site, trained: str, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    check(site.root, "git", "clone", "--quiet", str(site.root), str(clone))
    check(clone, "dvc", "remote", "modify", "--local", "share", "url", str(site.home / "share"))
    said = check(clone, "dvc", "repro", "--pull")
    assert "Stage 'train' is cached - skipping run" in said
    assert (clone / "models" / "model.pt").read_bytes() == (site.root / "models" / "model.pt").read_bytes()


def test_the_model_is_made_again_to_the_bit(site: Site, trained: str) -> None:
    before = git(site.root, "status", "--porcelain"), (site.root / "dvc.lock").read_bytes()
    said = check(site.root, "mlops", "reproduce", "forklift@champion")
    assert "forklift/1 is reproduced: the weights are identical to the bit" in said
    for what in ("commit", "data (md5)", "environment (lock)", "device", "numeric precision", "threads", "mAP50-95"):
        (row,) = (line for line in said.splitlines() if re.search(rf"^│ {re.escape(what)}\s", line))
        original, again = re.findall(r"\S+", row.split(what, 1)[1].replace("│", " "))[:2]
        assert original == again, row
    assert (git(site.root, "status", "--porcelain"), (site.root / "dvc.lock").read_bytes()) == before
    assert git(site.root, "worktree", "list").count("\n") == 0


def test_a_challenger_below_the_margin_is_refused_and_rollback_swaps(site: Site, trained: str) -> None:
    recipe = site.root / "configs" / "forklift.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 0", "seed: 1").replace("margin: 0.0 ", "margin: 1.0 "))
    assert "forklift/2 was registered, the champion stays: refused" in site.train()
    assert site.aliases() == {"champion": "1"}
    refused = run(site.root, "mlops", "rollback", "forklift", "--yes")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr

    lineage = json.loads(check(site.root, "mlops", "lineage", "forklift/2", "--json"))
    assert lineage["commit"]["dirty"] == "yes"
    assert lineage["params"]["train.seed"] == "1"
    assert lineage["promotion"]["reason"].startswith("refused")


def test_a_model_of_uncommitted_changes_is_made_again_with_them(site: Site, trained: str) -> None:
    changed = (site.root / "configs" / "forklift.yaml").read_bytes()
    said = check(site.root, "mlops", "reproduce", "forklift/2")
    assert "forklift/2 is reproduced: the weights are identical to the bit" in said
    assert (site.root / "configs" / "forklift.yaml").read_bytes() == changed


def test_detect_video_runs_the_champion(site: Site, trained: str) -> None:
    said = check(site.root, "prefect", "deployment", "run", "detect-video/local", "--param", "output=found", "--watch")
    assert "Completed" in said
    rows = (site.root / "found" / "warehouse" / "detections.jsonl").read_text().splitlines()
    assert len(rows) == 8


@pytest.mark.parametrize(
    ("deployment", "parameter", "field"),
    [
        ("train-forklift/local", "recipe=/etc/passwd", "recipe"),
        ("reproduce-model/local", "tolerance=7", "tolerance"),
    ],
)
def test_bad_parameters_are_refused_before_scheduling(site: Site, deployment: str, parameter: str, field: str) -> None:
    count = site.prefect("flow_runs/count")
    refused = run(site.root, "prefect", "deployment", "run", deployment, "--param", parameter)
    assert refused.returncode == 1
    assert field in refused.stdout + refused.stderr
    assert site.prefect("flow_runs/count") == count


def test_a_recipe_with_mistakes_lists_them_all(site: Site) -> None:
    bad = site.root / "configs" / "bad.yaml"
    bad.write_text("name: forklift\ndata:\n  classes: [forklift]\ntrain:\n  epoch: 1\n  imgsz: 65\n")
    refused = run(site.root, "mlops", "train", "configs/bad.yaml")
    bad.unlink()
    assert refused.returncode == 1
    assert "configs/bad.yaml:5 train.epoch" in refused.stderr
    assert "configs/bad.yaml:6 train.imgsz" in refused.stderr
    assert "Traceback" not in refused.stderr
