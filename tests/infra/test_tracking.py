"""What a training's MLflow run holds, and that nothing is lost or doubled when the tracker is away."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from servers import MlflowProcess, free_port
from trainings import CODE, DIGEST, candidate, model_files, tell_all, training

from infra.tracking.entities import Run
from infra.tracking.journal import journal_folder
from infra.tracking.machine import machine_facts
from infra.tracking.sender import send_pending
from infra.tracking.server import MlflowServer
from infra.tracking.tracker import Tracker
from infra.tracking.training import JOURNAL


@pytest.fixture
def server(mlflow_server: MlflowProcess) -> Iterator[MlflowServer]:
    client = MlflowServer(mlflow_server.uri, timeout_s=60)
    yield client
    client.close()


@pytest.fixture
def nobody() -> MlflowServer:
    """An address where nobody listens."""
    return MlflowServer(f"http://127.0.0.1:{free_port()}", timeout_s=2)


def runs(server: MlflowServer, name: str, key: str) -> list[Run]:
    return server.find_runs(server.experiment(name), {JOURNAL: key})


def history(server: MlflowServer, run: Run, key: str) -> list[tuple[int, float]]:
    rows = server._call("GET", "metrics/get-history", {"run_id": run.id, "metric_key": key})["metrics"]
    return [(int(row.get("step", 0)), float(row["value"])) for row in rows]


def read(server: MlflowServer, run: Run, path: str) -> bytes:
    return b"".join(server.read_artifact(run, path))


def assert_whole(server: MlflowServer, name: str, key: str) -> Run:
    """One run, one version, every value once."""
    (run,) = runs(server, name, key)
    assert history(server, run, "epoch/train/box_loss") == [(1, 2.0), (2, 1.0)]
    assert run.metrics["test/mAP50/forklift"] == 0.9
    assert read(server, run, "plots/pr.svg") == b"<svg/>"
    assert [version.number for version in server.versions(name, run.id)] == [1]
    assert server.aliases(name) == {"champion": 1}
    assert len(run.datasets) == 1
    return run


def test_a_run_holds_all_that_a_person_looks_for(server: MlflowServer, tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    lock.write_text("schema: '2.0'\n")
    diff = "diff --git a/ml/x.py b/ml/x.py\n--- a/ml/x.py\n+++ b/ml/x.py\n+lr = 1\n"
    dirty = replace(CODE, diff=diff)
    told = training("whole", "w1", code=dirty, files={"dvc.lock": lock})
    tracker = Tracker(server, tmp_path / "home")
    run = tracker.start(told)
    tell_all(run, "whole", tmp_path / "made")
    lock.write_text("changed by the next training\n")
    registration = run.registration(wait_s=120)
    assert run.finish("FINISHED", wait_s=120)

    found = assert_whole(server, "whole", "w1")
    assert run.id == found.id
    assert run.url == f"{server.uri}/#/experiments/{found.experiment_id}/runs/{found.id}?workflowType=machine_learning"
    assert (found.status, found.name) == ("FINISHED", "whole-w1")
    assert found.params["data.classes"] == "[forklift, person]"
    assert (found.params["train.epochs"], found.params["device"]) == ("2", "cpu")
    dataset = found.datasets[0]
    assert dataset.digest == DIGEST
    assert json.loads(dataset.source) == {"remote": "smb://nas/share", "tag": "data-v1", "dvc": "data.dvc"}
    expected = {
        "git.commit": dirty.commit,
        "git.branch": "main",
        "git.dirty": "yes",
        "mlflow.source.git.commit": dirty.commit,
        "requirements.lock": "ab" * 32,
        "machine.hostname": "node1",
        "machine.cores": "2",
        "machine.gpu": "NVIDIA H100, 80 GB",
        "version.python": "3.11.7",
        "version.torch": "2.15.0",
        "prefect.flow_run_id": "w1",
        "data.tag": "data-v1",
        "mlops.train_key": "key-whole",
    }
    assert {key: found.tags.get(key) for key in expected} == expected
    assert read(server, found, "code/uncommitted.diff").decode() == diff
    assert read(server, found, "dvc.lock") == b"schema: '2.0'\n"
    assert registration is not None
    assert registration.promoted
    assert registration.url == f"{server.uri}/#/models/whole/versions/1?workflowType=machine_learning"
    assert list(journal_folder(tmp_path / "home").glob("w1*")) == []


def test_the_same_training_is_found_again(server: MlflowServer, tmp_path: Path) -> None:
    tracker = Tracker(server, tmp_path)
    assert tracker.find_training("again", "key-again") is None
    for key, status in (("a1", "FAILED"), ("a2", "FINISHED")):
        run = tracker.start(training("again", key))
        tell_all(run, "again", tmp_path / key)
        assert run.finish(status, wait_s=120)
    found = tracker.find_training("again", "key-again")
    assert found is not None
    assert (found.name, found.model) == ("again-a2", "again/2")
    assert found.metrics["test/mAP50-95"] == 0.5
    assert tracker.find_training("again", "another key") is None


def test_a_tracker_that_is_away_is_told_later_with_the_real_times(
    server: MlflowServer, nobody: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    begin = time.time() * 1000
    tracker = Tracker(nobody, home)
    assert tracker.champion("away") is None
    assert tracker.find_training("away", "key-away") is None
    run = tracker.start(training("away", "d1"))
    tell_all(run, "away", tmp_path / "made")
    assert run.registration(wait_s=60) is None
    assert run.finish("FINISHED", wait_s=60) is False
    end = time.time() * 1000
    assert run.id is None
    assert "training goes on" in caplog.text

    model_files(tmp_path / "made", "changed since")
    assert send_pending(home, nobody) == []
    (line,) = send_pending(home, server)
    assert "away/1 first champion" in line
    found = assert_whole(server, "away", "d1")
    assert begin - 1 <= found.start_ms <= (found.end_ms or 0) <= end + 1
    assert read(server, found, "model/model.pt") == b"weights" * 100
    assert send_pending(home, server) == []


def test_a_server_that_dies_in_the_middle_and_comes_back(mlflow_server: MlflowProcess, tmp_path: Path) -> None:
    server = MlflowServer(mlflow_server.uri, timeout_s=60)
    tracker = Tracker(server, tmp_path / "home")
    run = tracker.start(training("middle", "m1"))
    run.epoch(1, {"train/box_loss": 2.0})
    run._wait(lambda: not run._journal.unsent(), 120)
    assert run.id is not None
    mlflow_server.kill()
    try:
        run.epoch(2, {"train/box_loss": 1.0})
        run._wait(lambda: False, 60)
        assert run._journal.unsent() != []
    finally:
        mlflow_server.start()
    (tmp_path / "pr.svg").write_text("<svg/>")
    run.artifact(tmp_path / "pr.svg", "plots/pr.svg")
    run.metrics({"mAP50": {"forklift": 0.9}})
    run.register(model_files(tmp_path / "made"), candidate("middle", 0.5))
    assert run.finish("FINISHED", wait_s=120)
    assert_whole(server, "middle", "m1")


def test_a_hanging_server_holds_nobody_up(tmp_path: Path) -> None:
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        silent = MlflowServer(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout_s=30)
        run = Tracker(silent, tmp_path / "home").start(training("hanging", "h1"))
        for epoch in range(1, 50):
            run.epoch(epoch, {"loss": 1.0})
        assert run.finish("FINISHED", wait_s=1) is False
    assert len(open_lines(tmp_path / "home", "h1")) == 51


def test_what_is_no_mlflow_server_gets_nothing_and_loses_nothing(tmp_path: Path, server: MlflowServer) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b"<html>not here</html>")

        def log_message(self, *args: object) -> None:
            pass

    other = HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    run = Tracker(MlflowServer(f"http://127.0.0.1:{other.server_port}"), tmp_path / "home").start(
        training("other", "o1")
    )
    tell_all(run, "other", tmp_path / "made")
    assert run.finish("FINISHED", wait_s=60) is False
    other.shutdown()
    other.server_close()
    send_pending(tmp_path / "home", server)
    assert_whole(server, "other", "o1")


def in_child_killed_after(requests: int, action: Callable[[], object], server: MlflowServer) -> bool:
    """Run ``action`` in a process that is killed -9 between an answer of the server and its being noted.

    Returns whether it was killed; False if it ended by itself first.
    """
    child = os.fork()
    if child == 0:
        left = requests
        send = server._send

        def counted(method: str, url: str, **request: object) -> object:
            nonlocal left
            answer = send(method, url, **request)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        server._send = counted  # type: ignore[assignment, method-assign]
        try:
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_killed_at_any_point_everything_arrives_once(
    mlflow_server: MlflowProcess, server: MlflowServer, nobody: MlflowServer, tmp_path: Path
) -> None:
    seed = 20261123
    rng = random.Random(seed)
    home = tmp_path / "home"
    run = Tracker(nobody, home).start(training("killed", "k1"))
    tell_all(run, "killed", tmp_path / "made")
    run.finish("FINISHED", wait_s=30)
    kills = 0
    while journal_folder(home).joinpath("k1").exists():
        client = MlflowServer(mlflow_server.uri, timeout_s=60)
        # The most requests of one operation are some twenty (register): fewer every time would never get past it.
        requests = rng.choice([1, 2, 3, 5, 8, 13, 21, 34])
        kills += in_child_killed_after(requests, lambda client=client: send_pending(home, client), client)  # type: ignore[misc]
        assert kills < 100, f"no progress, seed {seed}"
    assert kills >= 5
    found = assert_whole(server, "killed", "k1")
    assert found.status == "FINISHED"


def test_killed_after_every_single_request_of_a_registration(
    mlflow_server: MlflowProcess, server: MlflowServer, nobody: MlflowServer, tmp_path: Path
) -> None:
    """The second promotion, the one that moves both aliases, interrupted after each of its requests."""
    home = tmp_path / "home"
    first = Tracker(server, home).start(training("steps", "s0"))
    tell_all(first, "steps", tmp_path / "first")
    assert first.finish("FINISHED", wait_s=120)
    run = Tracker(nobody, home).start(training("steps", "s1"))
    run.register(model_files(tmp_path / "second", "better"), candidate("steps", 0.6))
    run.finish("FINISHED", wait_s=30)
    for requests in range(1, 60):
        client = MlflowServer(mlflow_server.uri, timeout_s=60)
        killed = in_child_killed_after(requests, lambda client=client: send_pending(home, client), client)  # type: ignore[misc]
        aliases = server.aliases("steps")
        assert aliases.get("champion") in {1, 2}
        if not killed:
            break
    assert not killed
    assert server.aliases("steps") == {"champion": 2, "previous": 1}
    assert [version.number for version in server.versions("steps")] == [1, 2]
    assert "mlops.pending_change" not in server.model_tags("steps")
    assert len(runs(server, "steps", "s1")) == 1


def test_a_killed_training_is_closed_and_goes_on_in_the_same_run(server: MlflowServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    child = os.fork()
    if child == 0:
        run = Tracker(server, home).start(training("resumed", "r1"))
        run.epoch(1, {"train/box_loss": 2.0})
        run._wait(lambda: run.id is not None, 60)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    send_pending(home, server)
    (killed,) = runs(server, "resumed", "r1")
    assert killed.status == "KILLED"

    run = Tracker(server, home).start(training("resumed", "r1"))
    run.epoch(2, {"train/box_loss": 1.0})
    assert run.finish("FINISHED", wait_s=120)
    (found,) = runs(server, "resumed", "r1")
    assert (found.id, found.status, found.start_ms) == (killed.id, "FINISHED", killed.start_ms)
    assert history(server, found, "epoch/train/box_loss") == [(1, 2.0), (2, 1.0)]


def test_what_a_killed_process_had_under_way_is_no_second_run(server: MlflowServer, tmp_path: Path) -> None:
    """Its requests can reach the server after the next process has looked and found nothing."""
    run = Tracker(server, tmp_path / "home").start(training("late", "e1"))
    tell_all(run, "late", tmp_path / "made")
    assert run.registration(wait_s=120)
    (found,) = runs(server, "late", "e1")
    server.create_run(found.experiment_id, "late-e1", found.start_ms, {JOURNAL: "e1"})
    server.create_version("late", found.id, "model", "", {})
    assert run.finish("FINISHED", wait_s=120)
    assert_whole(server, "late", "e1")


def test_a_training_that_cannot_be_opened_does_not_hold_up_the_others(
    server: MlflowServer, nobody: MlflowServer, tmp_path: Path
) -> None:
    for key, name in (("z1", "x" * 501), ("z2", "behind")):
        run = Tracker(nobody, tmp_path).start(training(name, key))
        run.finish("FINISHED", wait_s=10)
    assert len(send_pending(tmp_path, server)) == 1
    assert len(runs(server, "behind", "z2")) == 1
    assert (journal_folder(tmp_path) / "z1").is_dir()


def test_a_journal_in_use_is_left_alone(server: MlflowServer, nobody: MlflowServer, tmp_path: Path) -> None:
    run = Tracker(nobody, tmp_path).start(training("in-use", "u1"))
    assert send_pending(tmp_path, server) == []
    assert server.find_experiment("in-use") is None
    run.finish("FAILED", wait_s=10)
    send_pending(tmp_path, server)
    (found,) = runs(server, "in-use", "u1")
    assert found.status == "FAILED"


def test_numbers_that_are_none_and_odd_names_arrive(server: MlflowServer, tmp_path: Path) -> None:
    run = Tracker(server, tmp_path).start(training("odd", "n1", params={"long": "x" * 9000, "none": None}))
    run.epoch(1, {"loss": float("nan"), "metrics/mAP50(B)": float("inf"), "fine": 1.0})
    (tmp_path / "ä b#?.txt").write_text("hello")
    run.artifact(tmp_path / "ä b#?.txt", "plots/ä b#?.txt")
    assert run.finish("FINISHED", wait_s=120)
    (found,) = runs(server, "odd", "n1")
    assert found.metrics["epoch/fine"] == 1.0
    assert "epoch/metrics/mAP50_B_" in found.metrics
    assert read(server, found, "plots/ä b__.txt") == b"hello"
    assert len(found.params["long"]) == 6000


def test_what_the_server_refuses_for_good_stops_nothing(
    server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Tracker(server, tmp_path).start(training("refused", "f1"))
    run.params({"train.epochs": 3})
    run.epoch(1, {"loss": 1.0})
    assert run.finish("FINISHED", wait_s=120)
    (found,) = runs(server, "refused", "f1")
    assert (found.params["train.epochs"], found.metrics["epoch/loss"]) == ("2", 1.0)
    assert "refuses params for good" in caplog.text


def test_a_full_disk_is_a_warning(server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On a real file system of 64 kB, where the machine lets us make one."""
    home = tmp_path / "home"
    home.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(home)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        with caplog.at_level(logging.WARNING):
            run = Tracker(server, home).start(training("full", "x1"))
            (home / "filler").write_bytes(b"x" * (os.statvfs(home).f_bavail * os.statvfs(home).f_frsize))
            tell_all(run, "full", tmp_path / "made")
            run.finish("FINISHED", wait_s=120)
        assert_whole(server, "full", "x1")
        assert "cannot be kept" in caplog.text
    finally:
        subprocess.run(["umount", str(home)], check=True)


def test_half_a_line_is_left_out(server: MlflowServer, nobody: MlflowServer, tmp_path: Path) -> None:
    run = Tracker(nobody, tmp_path).start(training("half", "l1"))
    run.epoch(1, {"loss": 1.0})
    run.finish("FINISHED", wait_s=10)
    lines = journal_folder(tmp_path) / "l1" / "journal.jsonl"
    lines.write_bytes(lines.read_bytes()[:-20])
    send_pending(tmp_path, server)
    (found,) = runs(server, "half", "l1")
    assert (found.status, found.metrics["epoch/loss"]) == ("KILLED", 1.0)


def test_no_secret_reaches_journal_or_server(
    mlflow_server: MlflowProcess,
    server: MlflowServer,
    nobody: MlflowServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SHARE_PASSWORD", "canary-environment")
    repo = tmp_path / "repo"
    repo.mkdir()

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, cwd=repo, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    for name, text in (("train.py", "lr = 1\n"), (".env", "A=1\n"), ("site.key", "k\n"), (".gitignore", "ignored\n")):
        (repo / name).write_text(text)
    git("add", "-A")
    git("commit", "-qm", "first")
    (repo / "train.py").write_text("lr = 2\npassword = 'canary-environment'\n")
    (repo / ".env").write_text("A=canary-tracked\n")
    (repo / "site.key").write_text("canary-key\n")
    (repo / "ignored").write_text("canary-ignored\n")
    (repo / "untracked.txt").write_text("canary-untracked\n")
    code = replace(CODE, diff=git("diff", "HEAD"))
    with_password = MlflowServer(f"http://ann:canary-uri@127.0.0.1:{free_port()}", timeout_s=2)
    home = tmp_path / "home"
    run = Tracker(with_password, home).start(training("secret", "c1", code=code))
    tell_all(run, "secret", tmp_path / "made")
    run.finish("FINISHED", wait_s=30)
    kept = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert b"lr = 2" in kept
    send_pending(home, server)
    (found,) = runs(server, "secret", "c1")
    assert b"left out because its name says" in read(server, found, "code/uncommitted.diff")
    sent = b"".join(path.read_bytes() for path in mlflow_server.folder.rglob("*") if path.is_file())
    assert b"lr = 2" in sent
    for text in (kept, sent, caplog.text.encode()):
        for secret in (b"canary", b"hunter22"):
            assert secret not in text


def test_a_client_of_mlflow_itself_downloads_the_champion(server: MlflowServer, tmp_path: Path) -> None:
    run = Tracker(server, tmp_path / "home").start(training("native", "t1"))
    tell_all(run, "native", tmp_path / "made")
    assert run.finish("FINISHED", wait_s=120)
    import mlflow

    mlflow.set_tracking_uri(server.uri)
    folder = Path(mlflow.artifacts.download_artifacts("models:/native@champion", dst_path=str(tmp_path / "got")))
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names >= {"model.pt", "model.onnx", "openvino/model.xml", "openvino/model.bin", "manifest.json"}
    assert (folder / "model.pt").read_text() == "weights" * 100


def test_this_machine_is_described() -> None:
    facts = machine_facts()
    assert facts.cores >= 1
    assert facts.memory_gb > 0.1
    assert facts.cpu
    assert {"torch", "ultralytics", "mlflow"} <= set(facts.versions)


def open_lines(home: Path, key: str) -> list[str]:
    return (journal_folder(home) / key / "journal.jsonl").read_text().splitlines()
