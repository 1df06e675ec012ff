"""Promotion, refusal, rollback, download and lineage, against a real MLflow server."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from servers import MlflowProcess, free_port
from trainings import DIGEST, candidate, model_files, training
from typer.testing import CliRunner

from cli.lineage import lineage as lineage_command
from cli.rollback import rollback as rollback_command
from configs.problems import UserError
from infra.tracking import registry
from infra.tracking.download import download_model
from infra.tracking.lineage import lineage, resolve_version
from infra.tracking.registry import Registration
from infra.tracking.server import MlflowServer
from infra.tracking.tracker import Tracker, TrainingRun

app = typer.Typer()
app.command("lineage")(lineage_command)
app.command("rollback")(rollback_command)


@pytest.fixture
def server(mlflow_server: MlflowProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[MlflowServer]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")
    client = MlflowServer(mlflow_server.uri, timeout_s=60)
    yield client
    client.close()


def train(server: MlflowServer, home: Path, name: str, key: str, value: float, **changes: object) -> Registration:
    """A finished training with a version of metric ``value``."""
    run = Tracker(server, home).start(training(name, key))
    run.metrics({"mAP50-95": value})
    run.register(model_files(home / "made" / key, f"{key} "), candidate(name, value, **changes))
    return verdict(run)


def verdict(run: TrainingRun) -> Registration:
    registration = run.registration(wait_s=120)
    assert run.finish("FINISHED", wait_s=120)
    assert registration is not None
    return registration


def artifact(mlflow: MlflowProcess, server: MlflowServer, reference: str, path: str) -> Path:
    """A version's file where the server keeps it."""
    run = server.run(resolve_version(server, reference).run_id)
    assert run is not None
    return mlflow.artifacts / run.artifacts / "model" / path


def test_the_better_one_is_promoted_and_the_worse_refused(server: MlflowServer, tmp_path: Path) -> None:
    first = train(server, tmp_path, "gate", "g1", 0.50)
    assert (first.promoted, first.champion) == (True, None)
    worse = train(server, tmp_path, "gate", "g2", 0.505)
    assert (worse.promoted, worse.champion) == (False, 1)
    assert "margin" in worse.reason
    assert server.aliases("gate") == {"champion": 1}
    better = train(server, tmp_path, "gate", "g3", 0.52)
    assert (better.promoted, better.number, better.champion) == (True, 3, 1)
    assert server.aliases("gate") == {"champion": 3, "previous": 1}

    refused, champion = (server.version("gate", number) for number in (2, 3))
    assert refused is not None
    assert champion is not None
    assert refused.tags["promotion.verdict"] == "refused"
    assert refused.tags["promotion.reason"] == worse.reason
    assert champion.tags["promotion.by"] == "ann@node1"
    assert champion.tags["promotion.at"].startswith("20")
    assert "| mAP50-95 | 0.5200 | 0.5000 | +0.0200 |" in champion.description
    assert "Not promoted, refused" in refused.description
    now = Tracker(server, tmp_path).champion("gate")
    assert now is not None
    assert (now.number, now.metrics["mAP50-95"], now.test_split) == (3, 0.52, "split-1")


def test_another_test_split_needs_the_champion_judged_again(server: MlflowServer, tmp_path: Path) -> None:
    train(server, tmp_path, "split", "p1", 0.50)
    blind = train(server, tmp_path, "split", "p2", 0.90, test_split="split-2")
    assert not blind.promoted
    assert blind.reason.startswith("not comparable")
    of_another = train(
        server, tmp_path, "split", "p3", 0.90, test_split="split-2", champion=2, champion_metrics={"mAP50-95": 0.1}
    )
    assert of_another.reason.startswith("not comparable")
    again = {"champion": 1, "champion_metrics": {"mAP50-95": 0.8}}
    judged = train(server, tmp_path, "split", "p4", 0.90, test_split="split-2", **again)
    assert judged.promoted
    assert "0.8000" in judged.reason


def test_incomplete_files_are_never_promoted(
    mlflow_server: MlflowProcess, server: MlflowServer, tmp_path: Path
) -> None:
    train(server, tmp_path, "incomplete", "i1", 0.50)
    for key, spoil in (("i2", "remove"), ("i3", "cut"), ("i4", "change")):
        run = Tracker(server, tmp_path).start(training("incomplete", key))
        run.register(model_files(tmp_path / "made" / key), candidate("incomplete", 0.9))
        # Spoilt after the upload, then judged once more as if it had not been yet.
        verdict(run)
        version = resolve_version(server, "incomplete@champion")
        file = artifact(mlflow_server, server, str(version), "model.onnx")
        if spoil == "remove":
            file.unlink()
        elif spoil == "cut":
            file.write_bytes(file.read_bytes()[:-1])
        else:
            file.write_bytes(bytes(file.stat().st_size))
        server.set_alias("incomplete", "champion", 1)
        server.delete_alias("incomplete", "previous")
        server._call(
            "DELETE",
            "model-versions/delete-tag",
            {"name": "incomplete", "version": str(version.number), "key": "promotion.verdict"},
        )
        judged = registry.decide(server, tmp_path, version, candidate("incomplete", 0.9))
        assert not judged.promoted
        assert "incomplete: model.onnx" in judged.reason
        assert server.aliases("incomplete") == {"champion": 1}


def test_a_file_that_is_not_there_is_refused_with_its_name(server: MlflowServer, tmp_path: Path) -> None:
    files = model_files(tmp_path / "made")
    files["model.onnx"].unlink()
    run = Tracker(server, tmp_path).start(training("absent", "b1"))
    run.register(files, candidate("absent", 0.5))
    registration = verdict(run)
    assert not registration.promoted
    assert "model.onnx is missing" in registration.reason
    assert server.aliases("absent") == {}


def test_two_trainings_at_once_leave_one_champion(server: MlflowServer, tmp_path: Path) -> None:
    train(server, tmp_path, "pair", "c0", 0.1)
    made: list[Registration] = []

    def one(key: str, value: float) -> None:
        made.append(train(server, tmp_path, "pair", key, value))

    threads = [threading.Thread(target=one, args=(key, value)) for key, value in (("c1", 0.5), ("c2", 0.7))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    best = next(item for item in made if "0.7000" in item.reason)
    aliases = server.aliases("pair")
    assert aliases["champion"] == best.number
    assert aliases["previous"] == best.champion


def test_rollback_swaps_and_swaps_again(server: MlflowServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    train(server, home, "back", "r1", 0.5)
    train(server, home, "back", "r2", 0.6)
    result = CliRunner().invoke(app, ["rollback", "back"], input="n\n")
    assert result.exit_code == 1
    assert "champion back/2" in result.output
    assert server.aliases("back") == {"champion": 2, "previous": 1}
    result = CliRunner().invoke(app, ["rollback", "back", "--yes", "--why", "boxes are off"])
    assert result.exit_code == 0, result.output
    assert server.aliases("back") == {"champion": 1, "previous": 2}
    champion = server.version("back", 1)
    left = server.version("back", 2)
    assert champion is not None
    assert left is not None
    assert champion.tags["promotion.reason"] == "rolled back from back/2: boxes are off"
    assert "first champion" in champion.tags["promotion.history"]
    assert "rolled back to back/1: boxes are off" in left.tags["promotion.history"]
    assert CliRunner().invoke(app, ["rollback", "back", "--yes"]).exit_code == 0
    assert server.aliases("back") == {"champion": 2, "previous": 1}


def test_rollback_refuses_what_is_not_there_or_not_whole(
    mlflow_server: MlflowProcess, server: MlflowServer, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="is no registered model"):
        registry.rollback_plan(server, "nothing")
    train(server, tmp_path, "alone", "q1", 0.5)
    with pytest.raises(UserError, match="no previous champion"):
        registry.rollback_plan(server, "alone")
    train(server, tmp_path, "alone", "q2", 0.6)
    plan = registry.rollback_plan(server, "alone")
    artifact(mlflow_server, server, "alone@previous", "openvino/model.bin").unlink()
    with pytest.raises(UserError, match=r"openvino/model\.bin is missing"):
        registry.rollback(server, tmp_path, plan, "ann", "")
    assert server.aliases("alone") == {"champion": 2, "previous": 1}


def test_a_rollback_planned_on_another_champion_is_refused(server: MlflowServer, tmp_path: Path) -> None:
    train(server, tmp_path, "stale", "v1", 0.5)
    train(server, tmp_path, "stale", "v2", 0.6)
    plan = registry.rollback_plan(server, "stale")
    train(server, tmp_path, "stale", "v3", 0.7)
    with pytest.raises(UserError, match="champion is now stale/3"):
        registry.rollback(server, tmp_path, plan, "ann", "")
    assert server.aliases("stale") == {"champion": 3, "previous": 2}


def test_a_model_is_downloaded_once_and_whole(
    mlflow_server: MlflowProcess, server: MlflowServer, tmp_path: Path
) -> None:
    train(server, tmp_path, "fetch", "f1", 0.5)
    target = tmp_path / "models"
    model = download_model(server, "models:/fetch@champion", target)
    assert (model.folder / "model.pt").read_text() == "f1 " * 100
    stamp = (model.folder / "model.pt").stat().st_mtime_ns
    assert download_model(server, "fetch/1", target).folder == model.folder
    assert (model.folder / "model.pt").stat().st_mtime_ns == stamp
    (model.folder / "openvino" / "model.bin").write_bytes(b"spoilt")
    download_model(server, "fetch", target)
    assert (model.folder / "openvino" / "model.bin").read_bytes() == b"\0\1\2" * 50

    shutil.rmtree(target)
    artifact(mlflow_server, server, "fetch/1", "model.pt").write_bytes(b"other")
    with pytest.raises(UserError, match=r"model\.pt: holds other bytes"):
        download_model(server, "fetch@champion", target)
    assert list((target / "fetch").iterdir()) == []


def test_lineage_tells_where_a_model_comes_from(server: MlflowServer, tmp_path: Path) -> None:
    train(server, tmp_path, "origin", "o1", 0.5)
    train(server, tmp_path, "origin", "o2", 0.6)
    found = lineage(server, "origin@champion")
    assert (found.model, found.aliases, found.again) == ("origin/2", ("champion",), "mlops reproduce origin/2")
    assert found.commit["commit"] == "c0ffee" * 6 + "c0ff"
    assert (found.commit["subject"], found.commit["dirty"]) == ("feat: learn faster", "no")
    assert (found.data["digest"], found.data["tag"], found.data["remote"]) == (DIGEST, "data-v1", "smb://nas/share")
    assert found.params["train.epochs"] == "2"
    assert found.environment == {"requirements.lock": "ab" * 32, "python": "3.11.7", "torch": "2.15.0"}
    assert found.machine["gpu"] == "NVIDIA H100, 80 GB"
    assert found.metrics["mAP50/forklift"] == 0.9
    assert (found.promotion["by"], found.promotion["against"]) == ("ann@node1", "1")
    assert found.files["model.pt"].size == 300
    assert lineage(server, "origin@previous").model == "origin/1"
    assert lineage(server, "models:/origin/1").model == "origin/1"
    assert lineage(server, found.run["id"]) == found


def test_lineage_is_readable_in_eighty_columns_and_by_programs(server: MlflowServer, tmp_path: Path) -> None:
    train(server, tmp_path, "shown", "s1", 0.5)
    result = CliRunner().invoke(app, ["lineage", "shown@champion"])
    assert result.exit_code == 0, result.output
    # Addresses stay whole, to be clicked on.
    assert max(len(line) for line in result.output.splitlines() if "http" not in line) <= 80
    for text in ("shown/1  (champion)", "c0ffee", DIGEST, "ann@node1", "forklift", "0.9000", "mlops reproduce shown/1"):
        assert text in result.output
    result = CliRunner().invoke(app, ["lineage", "shown/1", "--json"])
    values = json.loads(result.output)
    assert values["data"]["digest"] == DIGEST
    assert values["files"]["model.onnx"]["size"] == len("onnx s1 ")


def test_unknown_names_list_what_there_is(server: MlflowServer, tmp_path: Path) -> None:
    train(server, tmp_path, "known", "k1", 0.5)
    for reference, told in (
        ("knwon@champion", "did you mean known?"),
        ("zzz", "known"),
        ("known@best", "known@champion, known/1"),
        ("known/7", "known/1"),
        ("known/x/y", "write forklift@champion"),
        ("0" * 32, "no run"),
    ):
        with pytest.raises(UserError) as caught:
            lineage(server, reference)
        assert told in str(caught.value)


def test_a_server_that_is_down_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:canary@127.0.0.1:{free_port()}")
    for command in (["lineage", "forklift@champion"], ["rollback", "forklift"]):
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, UserError)
        assert "mlops up" in str(result.exception)
        assert "canary" not in str(result.exception)
