"""A user's own data becomes a version; bad data changes nothing."""

from __future__ import annotations

import shutil
import sys
import time
import zipfile
from pathlib import Path

import pytest
import yaml
from checkouts import check, git, run
from sites import Site

pytestmark = pytest.mark.slow


@pytest.fixture
def source(site: Site, tmp_path: Path) -> Path:
    """A user's dataset in the layout that Roboflow exports, zipped."""
    drawn = tmp_path / "drawn"
    sizes = ("--train=12", "--val=4", "--test=4", "--frames=2", "--seed=99")
    check(site.root, sys.executable, "-m", "ml.warehouse", str(drawn), *sizes)
    archive = tmp_path / "mine.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
            for kind in ("images", "labels"):
                for path in sorted((drawn / kind / split).iterdir()):
                    file.write(path, f"{folder}/{kind}/{path.name}")
        file.writestr(
            "data.yaml",
            "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\n"
            "names: ['forklift', 'person']\n",
        )
    return archive


def publish(site: Site, source: Path) -> tuple[int, str]:
    done = run(
        site.root,
        *("prefect", "deployment", "run", "publish-dataset/local", "--param", f"source={source}", "--watch"),
        COLUMNS="1000",
    )
    return done.returncode, done.stdout + done.stderr


def test_faulty_data_is_listed_and_changes_nothing(site: Site, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "faulty"
    shutil.unpack_archive(source, folder)
    images = sorted((folder / "train" / "images").iterdir())
    images[0].write_bytes(images[0].read_bytes()[:500])
    (folder / "train" / "labels" / f"{images[1].stem}.txt").write_text("0 0.5 0.5 0.2 0.2\n1 1.7 0.5 0.2 0.2\n")
    before = git(site.root, "rev-parse", "HEAD"), (site.root / "data.dvc").read_bytes()
    status, said = publish(site, folder)
    assert status == 1
    assert images[0].name in said
    assert f"{images[1].stem}.txt:2" in said
    assert (git(site.root, "rev-parse", "HEAD"), (site.root / "data.dvc").read_bytes()) == before
    assert len(list((site.root / "data" / "images" / "train").iterdir())) == 80


def test_a_version_is_tagged_pushed_announced_and_trained_on(site: Site, source: Path) -> None:
    status, said = publish(site, source)
    assert status == 0, said
    assert git(site.root, "tag", "--list", "data-v*") == "data-v1"
    assert git(site.root, "show", "--name-only", "--format=%s", "data-v1^{commit}").split() == [
        *("data:", "data-v1"),
        "data.dvc",
    ]
    digest = yaml.safe_load((site.root / "data.dvc").read_text())["outs"][0]["md5"]
    assert (site.home / "share" / "files" / "md5" / digest[:2] / digest[2:]).is_file()
    assert check(site.root, "dvc", "status", "data.dvc").strip() == "Data and pipelines are up to date."

    def trainings() -> list[dict[str, object]]:
        runs = site.prefect("flow_runs/filter", sort="START_TIME_DESC", flows={"name": {"any_": ["train-forklift"]}})
        assert isinstance(runs, list)
        return [item for item in runs if item["created_by"] and item["created_by"]["type"] == "AUTOMATION"]

    deadline = time.monotonic() + 120
    while not trainings() or trainings()[0]["state_type"] not in ("COMPLETED", "FAILED", "CRASHED"):
        assert time.monotonic() < deadline, "publishing did not start a training"
        time.sleep(1)
    assert trainings()[0]["state_type"] == "COMPLETED"

    status, said = publish(site, source)
    assert status == 0, said
    assert git(site.root, "tag", "--list", "data-v*") == "data-v1"
