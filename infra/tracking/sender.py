"""Sends the operations of a journal to the MLflow server, in order, each with one effect however often it is sent.

What makes that so: a run is found again by the tag ``mlops.journal``, a version by its run; metrics, parameters,
tags, inputs and artifacts sent twice replace or equal themselves in MLflow; a verdict is a tag of the version.

Operations: ``open`` (experiment, name, tags, params, dataset), ``metrics`` (values, step), ``params``, ``tags``,
``artifact`` (path, and file or text), ``register`` (candidate), ``finish`` (status).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.tracking.entities import RefusedError, Run, UnreachableError
from infra.tracking.journal import Entry, Journal, left_journals
from infra.tracking.manifest import FOLDER
from infra.tracking.registry import METRICS, VERDICT, Candidate, Registration, decide, settle
from infra.tracking.server import MlflowServer
from infra.tracking.training import JOURNAL, TEST_SPLIT

log = logging.getLogger(__name__)


class Sender:
    """Sends one journal. ``run`` and ``registration`` are None until the server knows them."""

    def __init__(self, journal: Journal, server: MlflowServer, home: Path) -> None:
        self.journal = journal
        self.server = server
        self.home = home
        self.run: Run | None = None
        self.registration: Registration | None = None
        self.refused: list[str] = []

    def send_next(self) -> bool:
        """Send the first operation that is not known to have arrived; False if there is none.

        Raises:
            UnreachableError: it has to be sent again later.
        """
        unsent = self.journal.unsent()
        if not unsent:
            return False
        entry = unsent[0]
        try:
            self._apply(entry)
        except (RefusedError, ValueError) as error:
            if entry.name == "open":
                # Without its run nothing of the journal can be sent: keep it all.
                raise UnreachableError(f"the run cannot be opened: {error}") from error
            self.refused.append(f"{entry.name} {entry.values.get('path', '')}: {error}")
            log.warning("the tracker refuses %s for good: %s", entry.name, error)
        except OSError as error:
            raise UnreachableError(f"{entry.name} cannot be sent from here: {error}") from error
        except (KeyError, TypeError) as error:
            raise UnreachableError(f"{self.server.uri} answers in an unknown form: {error!r}") from error
        self.journal.acknowledge(entry, self.run.id if self.run else None)
        return True

    def send_all(self) -> None:
        """Send what is left.

        Raises:
            UnreachableError: at the first operation that does not arrive.
        """
        while self.send_next():
            pass

    def _apply(self, entry: Entry) -> None:
        values = entry.values
        if entry.name == "open":
            self.run = self._open(values, entry.at_ms)
            return
        run = self._known_run()
        match entry.name:
            case "metrics":
                self.server.log_metrics(run.id, _floats(values["values"]), values["step"], entry.at_ms)
            case "params":
                self.server.log_params(run.id, values["values"])
            case "tags":
                self.server.tag_run(run.id, values["values"])
            case "artifact":
                content = values["text"].encode() if "text" in values else self.journal.folder / values["file"]
                if isinstance(content, Path) and not content.is_file():
                    raise RefusedError("FILE_IS_GONE", f"{values['path']} is not there any more")
                self.server.put_artifact(run, values["path"], content)
            case "register":
                self.registration = self._register(run, values)
            case "finish":
                self.server.update_run(run.id, values["status"], entry.at_ms)
                self._drop_doubles(run)
            case name:
                raise ValueError(f"there is no operation {name}")

    def _open(self, values: Mapping[str, Any], at_ms: int) -> Run:
        experiment_id = self.server.experiment(values["experiment"])
        tags = values["tags"]
        found = self.server.find_runs(experiment_id, {JOURNAL: tags[JOURNAL]})
        run = (
            found[0]
            if found
            else self.server.create_run(experiment_id, values["name"], at_ms, {JOURNAL: tags[JOURNAL]})
        )
        if run.status != "RUNNING":
            self.server.update_run(run.id, "RUNNING")
        self.server.tag_run(run.id, tags)
        try:
            self.server.log_params(run.id, values["params"])
        except RefusedError as error:
            # Gone on with after a change of the recipe: the first values stay.
            self.refused.append(f"params: {error}")
        data = values["dataset"]
        self.server.log_dataset(run.id, data["name"], data["digest"], data["source"], "training")
        return self.server.run(run.id) or run

    def _known_run(self) -> Run:
        if self.run is None:
            self.run = self.server.run(self.journal.run_id) if self.journal.run_id else None
            if self.run is None:
                raise RefusedError("RESOURCE_DOES_NOT_EXIST", "its run is gone")
        return self.run

    def _register(self, run: Run, values: Mapping[str, Any]) -> Registration:
        candidate = Candidate(**{**values, "metrics": _floats(values["metrics"])})
        self.server.create_model(candidate.name, _model_description(candidate.name))
        settle(self.server, self.home, candidate.name)
        found = self.server.versions(candidate.name, run.id)
        version = next((version for version in found if VERDICT in version.tags), found[0] if found else None)
        if version is None:
            tags = {METRICS: json.dumps(dict(candidate.metrics)), TEST_SPLIT: candidate.test_split}
            version = self.server.create_version(candidate.name, run.id, FOLDER, "", tags)
        return decide(self.server, self.home, version, candidate)

    def _drop_doubles(self, run: Run) -> None:
        """A request of a killed process can still arrive after its successor has looked for its effect."""
        for double in self.server.find_runs(run.experiment_id, {JOURNAL: run.tags[JOURNAL]}):
            if double.id != run.id:
                self.server.delete_run(double.id)
        for name in {entry.values["name"] for entry in self.journal.entries if entry.name == "register"}:
            for version in self.server.versions(name, run.id):
                if VERDICT not in version.tags:
                    self.server.delete_version(version)


def send_pending(home: Path, server: MlflowServer) -> list[str]:
    """Send what earlier trainings could not send; journals of living processes are left alone.

    A training that ended without a word (killed, machine off) is closed as KILLED at its last sign of life; started
    again under its id, it goes on in the same run.

    Returns:
        One line for each training sent, to show. Never raises on the tracker's account.
    """
    told = []
    for journal in left_journals(home):
        sender = Sender(journal, server, home)
        name = journal.folder.name
        try:
            if not journal.finished:
                journal.append("finish", {"status": "KILLED"}, at_ms=journal.entries[-1].at_ms)
            sender.send_all()
        except UnreachableError as error:
            log.warning("the tracker still misses training %s: %s", name, error)
            if isinstance(error.__cause__, RefusedError | OSError | ValueError | KeyError | TypeError):
                # It is this training's own trouble: the others may get through.
                continue
            break
        journal.remove()
        registration = sender.registration
        told.append(
            f"sent training {name} to the tracker"
            + (f": {registration.name}/{registration.number} {registration.reason}" if registration else "")
        )
    return told


def _model_description(name: str) -> str:
    return (
        f"Detectors trained by the recipe `{name}`. The alias `champion` is the one in use, `previous` the one before "
        f"it.\n\n- where a version comes from: `mlops lineage {name}@champion`\n- make it again: `mlops reproduce "
        f"{name}@champion`\n- go back to the previous one: `mlops rollback {name}`\n"
    )


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in values.items()}
