"""The main job as a pod does it: the files of an image, no git, a cache on the node, everything else from outside.

What a cluster adds (Jobs, mounts, other nodes) is in tests/cluster; all that a pod's process does is here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from checkouts import ROOT, check, environment, git
from sites import Site

from configs.storage import DirectoryStorage
from infra.repository.git import code_version

pytestmark = pytest.mark.slow
RECIPE = "configs/pod.yaml"


@pytest.fixture(scope="module")
def clone(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's clone with a training that nobody has made, committed; its data are in the share."""
    target = tmp_path_factory.mktemp("pods") / "clone"
    check(site.root, "git", "clone", "--quiet", str(site.root), str(target))
    git(target, "config", "user.name", "Tester")
    git(target, "config", "user.email", "tester@example.org")
    text = (target / "configs" / "forklift.yaml").read_text()
    (target / RECIPE).write_text(re.sub(r"seed: \d+", "seed: 10001", text).replace("epochs: 4", "epochs: 2", 1))
    (target / "params.yaml").write_text(f"recipe: {RECIPE}\n")
    git(target, "add", "--all")
    git(target, "commit", "--quiet", "-m", "Another seed")
    check(site.root, "dvc", "push", "data.dvc")
    check(target, "dvc", "remote", "modify", "--local", "share", "url", str(site.home / "share"))
    return target


def pod(clone: Path, folder: Path) -> Path:
    """Make what an image of the clone's commit holds."""
    root = folder / "mlops"
    root.mkdir(parents=True)
    archive = subprocess.run(["git", "-C", str(clone), "archive", "HEAD"], capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(root)], input=archive.stdout, check=True)
    (root / "image.json").write_text(json.dumps(asdict(code_version(clone)) | {"lock_sha256": "", "built": ""}))
    return root


def run_in(root: Path, site: Site, cache: Path, flow: str) -> subprocess.CompletedProcess[str]:
    """Run a flow as a pod's process does, on the node that ``cache`` is kept on."""
    cache.mkdir(exist_ok=True)
    variables = {
        "PREFECT_API_URL": site.stack.prefect_api_url,
        "PREFECT_HOME": str(root / ".mlops" / "prefect"),
        "MLFLOW_TRACKING_URI": site.stack.mlflow_url,
        "MLOPS_HOME": str(root / ".mlops"),
        "MLOPS_CACHE": str(cache),
        "MLOPS_SHARE": DirectoryStorage(path=site.home / "share").model_dump_json(),
        "MLOPS_NODE": "node7",
        "MLOPS_POD": "wise-owl-1",
        "GIT_CEILING_DIRECTORIES": str(root.parent),
        "PYTHONPATH": os.pathsep.join([str(root), str(ROOT / "packages" / "dvc-smb")]),
    }
    return subprocess.run(
        [sys.executable, "-c", flow],
        cwd=root,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=400,
    )


TRAIN = f"from flows.train_forklift import train_forklift; train_forklift(recipe={RECIPE!r})"


@pytest.fixture(scope="module")
def trained(site: Site, clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The node's cache after a pod has trained there."""
    folder = tmp_path_factory.mktemp("node")
    done = run_in(pod(clone, folder / "first"), site, folder / "cache", TRAIN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pulled from the share" in done.stdout + done.stderr
    assert "train: epoch 2/2" in done.stdout + done.stderr
    return folder / "cache"


def test_a_second_pod_on_the_node_pulls_and_trains_nothing(
    site: Site, clone: Path, trained: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (trained / "files").rglob("*") if path.is_file()}
    root = pod(clone, tmp_path)
    done = run_in(root, site, trained, TRAIN)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "train: not run" in said
    assert "is in this machine's cache" in said
    assert "pulled from the share" not in said
    assert {path: path.stat().st_mtime_ns for path in (trained / "files").rglob("*") if path.is_file()} == before
    image = next((root / "data" / "images" / "train").iterdir())
    assert image.resolve().is_relative_to(trained)


def test_what_a_pod_trained_is_committed_by_a_user_who_trains_nothing(site: Site, clone: Path, trained: Path) -> None:
    said = check(clone, "dvc", "repro", "--pull")
    for stage in ("validate", "train", "evaluate", "detect"):
        assert f"Stage '{stage}' is cached - skipping run" in said
    assert "Running stage" not in said
    assert (clone / "models" / "model.pt").stat().st_size > 100_000
    assert list(yaml.safe_load((clone / "dvc.lock").read_text())["stages"])[1] == "train"
    git(clone, "add", "dvc.lock")
    git(clone, "commit", "--quiet", "-m", "Trained in a pod")
    assert "up to date" in check(clone, "dvc", "repro")


def test_the_run_tells_commit_node_and_pod(site: Site, clone: Path, trained: Path) -> None:
    experiment = site.mlflow("experiments/get-by-name", experiment_name="forklift")["experiment"]
    assert isinstance(experiment, dict)
    found = site.search(experiment["experiment_id"], "tags.`machine.pod` = 'wise-owl-1'")
    tags = {tag["key"]: tag["value"] for tag in found[-1]["data"]["tags"]}
    assert tags["git.commit"] == git(clone, "log", "--format=%H", "--grep=Another seed")
    assert (tags["machine.hostname"], tags["git.dirty"]) == ("node7", "no")


def test_publishing_is_refused_in_a_pod(site: Site, clone: Path, trained: Path, tmp_path: Path) -> None:
    publish = "from flows.publish_dataset import publish_dataset; publish_dataset(source='/tmp')"
    done = run_in(pod(clone, tmp_path), site, trained, publish)
    assert done.returncode == 1
    assert "needs a git checkout, and a container image has none" in done.stdout + done.stderr
