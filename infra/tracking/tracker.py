"""The tracker as a training sees it: calls that return at once and never fail.

Every call is first noted in the training's journal and then sent by a thread of its own. While the server does not
answer, training goes on; what it has not got is sent when it is back, at the latest by
:func:`infra.tracking.sender.send_pending`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.tracking.diffs import presentable_diff
from infra.tracking.entities import TrackerError, UnreachableError
from infra.tracking.journal import Journal, journal_folder, open_journal
from infra.tracking.manifest import FOLDER, MANIFEST, FileRecord, hash_file, to_json
from infra.tracking.registry import CHAMPION, Candidate, Registration, version_metrics
from infra.tracking.sender import Sender, send_pending
from infra.tracking.server import MlflowServer, artifact_name
from infra.tracking.training import TEST_SPLIT, TRAIN_KEY, Training, data_source, flatten, param_texts, run_tags

log = logging.getLogger(__name__)

PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class RunRef:
    """An earlier training. ``model``: the version it registered (``forklift/3``), empty if none."""

    id: str
    name: str
    url: str
    model: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class ChampionRef:
    """The champion now: its number, test metrics and what they were taken on (see ``Candidate.test_split``)."""

    name: str
    number: int
    metrics: Mapping[str, float]
    test_split: str
    url: str


class Tracker:
    """An MLflow server that may be away.

    Args:
        server: the server, see :func:`infra.tracking.access.mlflow_server`.
        home: the state folder, ``.mlops``.
    """

    def __init__(self, server: MlflowServer, home: Path) -> None:
        self.server = server
        self.home = home

    def send_pending(self) -> list[str]:
        """Send what earlier trainings could not send; one line to show for each."""
        try:
            return send_pending(self.home, self.server)
        except (TrackerError, OSError) as error:
            log.warning("the tracker is not to be had: %s", error)
            return []

    def start(self, training: Training) -> TrainingRun:
        """Open the run of a training, or go on in it if there is one of the same id."""
        return TrainingRun(training, self.server, self.home)

    def find_training(self, name: str, train_key: str) -> RunRef | None:
        """The first finished run of experiment ``name`` that trained the same; None also if the tracker is away."""
        try:
            experiment = self.server.find_experiment(name)
            if experiment is None or not train_key:
                return None
            for run in self.server.find_runs(experiment["experiment_id"], {TRAIN_KEY: train_key}, "FINISHED"):
                versions = self.server.versions(name, run.id)
                model = str(versions[-1]) if versions else ""
                return RunRef(run.id, run.name, self.server.run_url(run), model, run.metrics)
        except TrackerError as error:
            log.warning("whether the same was trained before cannot be asked: %s", error)
        return None

    def champion(self, name: str) -> ChampionRef | None:
        """The champion of model ``name``; None if there is none or the tracker is away."""
        try:
            number = self.server.aliases(name).get(CHAMPION)
            version = self.server.version(name, number) if number else None
        except TrackerError as error:
            log.warning("the champion cannot be asked for: %s", error)
            return None
        if version is None:
            return None
        split = version.tags.get(TEST_SPLIT, "")
        url = self.server.version_url(name, version.number)
        return ChampionRef(name, version.number, version_metrics(version), split, url)


class TrainingRun:
    """The MLflow run of one training. No call raises on the tracker's account; none waits but as its name says."""

    def __init__(self, training: Training, server: MlflowServer, home: Path) -> None:
        self._journal = _journal(home, training.id)
        self._sender = Sender(self._journal, server, home)
        self._changed = threading.Condition()
        self._stop = False
        self._hurry = False
        self._failures = 0
        self._note(
            "open",
            {
                "experiment": training.name,
                "name": training.title,
                "tags": run_tags(training),
                "params": param_texts(training.params),
                "dataset": {
                    "name": training.data.name,
                    "digest": training.data.digest,
                    "source": data_source(training.data),
                },
            },
        )
        if training.code.dirty and training.code.diff:
            self.text(presentable_diff(training.code.diff), "code/uncommitted.diff")
        for path, file in training.files.items():
            self.artifact(file, path)
        self._thread = threading.Thread(target=self._send, name="tracker", daemon=True)
        self._thread.start()

    @property
    def id(self) -> str | None:
        """MLflow's id of the run, None until the server has told it."""
        return self._sender.run.id if self._sender.run else self._journal.run_id

    @property
    def url(self) -> str | None:
        """Where the run can be looked at, None until the server knows it."""
        return self._sender.server.run_url(self._sender.run) if self._sender.run else None

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Losses and metrics after epoch ``epoch`` (from 1), named ``epoch/...``: one batch, one request.

        MLflow sorts charts by name: so the curves of the training come first, its test metrics below.
        """
        self._note("metrics", {"values": flatten({"epoch": metrics}, "/"), "step": epoch})

    def metrics(self, metrics: Mapping[str, Any], prefix: str = "test") -> None:
        """Final metrics, nested as they come: ``{"mAP50": {"forklift": .9}}`` becomes ``test/mAP50/forklift``."""
        self._note("metrics", {"values": flatten({prefix: metrics}, "/"), "step": 0})

    def params(self, params: Mapping[str, Any]) -> None:
        """What was decided at run time: device, precision, threads."""
        self._note("params", {"values": param_texts(params)})

    def tags(self, tags: Mapping[str, str]) -> None:
        self._note("tags", {"values": dict(tags)})

    def artifact(self, source: Path, path: str) -> None:
        """A file as artifact ``path``, or a folder's files below it, as they are now."""
        if source.is_dir():
            for file in sorted(source.rglob("*")):
                if file.is_file():
                    self.artifact(file, f"{path}/{file.relative_to(source).as_posix()}")
            return
        if not source.is_file():
            log.warning("%s is not there and not sent to the tracker", source)
            return
        self._note("artifact", {"path": artifact_name(path), "file": str(self._journal.keep(source))})

    def text(self, text: str, path: str) -> None:
        """A short text as artifact ``path``."""
        self._note("artifact", {"path": artifact_name(path), "text": text})

    def register(self, files: Mapping[str, Path], candidate: Candidate) -> None:
        """Register a version with these files and have it judged.

        Args:
            files: files or folders by their path below ``model/``: ``model.pt``, ``model.onnx``, ``openvino``.
            candidate: metrics and what they are measured by.
        """
        manifest: dict[str, FileRecord] = {}
        for name, source in files.items():
            found = sorted(file for file in source.rglob("*") if file.is_file()) if source.is_dir() else [source]
            for file in found:
                path = artifact_name(f"{name}/{file.relative_to(source).as_posix()}" if source.is_dir() else name)
                kept = self._journal.keep(file)
                try:
                    manifest[path] = hash_file(self._journal.folder / kept)
                except OSError as error:
                    # Not in the manifest as it should be: the gate will refuse the version and say so.
                    log.warning("%s cannot be registered: %s", file, error)
                    manifest[path] = FileRecord(0, "unreadable")
                self._note("artifact", {"path": f"{FOLDER}/{path}", "file": str(kept)})
        self.text(to_json(manifest), f"{FOLDER}/{MANIFEST}")
        self._note("register", asdict(candidate))

    def registration(self, wait_s: float = 30.0) -> Registration | None:
        """What became of the candidate: waits for the verdict, but not for a tracker that does not answer."""
        self._wait(lambda: self._sender.registration is not None, wait_s)
        return self._sender.registration

    def finish(self, status: str, wait_s: float = 30.0) -> bool:
        """Close the run: ``FINISHED``, ``FAILED`` or ``KILLED``.

        Returns:
            Whether the tracker knows everything; if not, it is kept and sent later.
        """
        self._note("finish", {"status": status})
        self._wait(lambda: not self._journal.unsent(), wait_s)
        with self._changed:
            self._stop = True
            self._changed.notify_all()
        self._thread.join(timeout=0.2)
        if self._thread.is_alive():
            # It hangs in a request and needs the journal; both go with the process.
            return False
        sent = not self._journal.unsent()
        if sent:
            self._journal.remove()
        self._journal.close()
        return sent

    def _note(self, name: str, values: Mapping[str, Any]) -> None:
        with self._changed:
            self._journal.append(name, values)
            self._changed.notify_all()

    def _wait(self, done: Callable[[], bool], wait_s: float) -> None:
        """Until it is done, nothing is left to send, the time is over or a new attempt fails."""
        deadline = time.monotonic() + wait_s
        with self._changed:
            before, self._hurry = self._failures, True
            self._changed.notify_all()
            while not done() and self._journal.unsent() and self._failures == before:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return

    def _send(self) -> None:
        pause = PAUSE_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stop or bool(self._journal.unsent()))
                if self._stop:
                    return
            try:
                self._sender.send_next()
            except UnreachableError as error:
                if pause == PAUSE_S:
                    log.warning("the tracker does not answer; training goes on, it is told later (%s)", error)
                with self._changed:
                    self._failures += 1
                    self._hurry = False
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._stop or self._hurry, timeout=pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                pause = PAUSE_S
                with self._changed:
                    self._changed.notify_all()


def _journal(home: Path, name: str) -> Journal:
    try:
        return open_journal(home, name)
    except OSError as error:
        log.warning("what the tracker does not know cannot be kept: %s", error)
        return Journal(journal_folder(home) / name, -1)
