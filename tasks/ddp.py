"""A distributed training as Prefect tasks: data, launch, follow, keep what it left."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from prefect.exceptions import TerminationSignal

from configs.ddp import DdpConfig, load_ddp
from configs.home import home_folder
from configs.problems import UserError
from configs.quantity import parse_quantity
from infra.ddp import torchrun
from infra.ddp.launch import Dataset, Gang, Launcher, Outcome, Watch
from infra.repository.code import code_version, find_root
from infra.repository.dvc import tracked_digest
from infra.repository.git import CodeVersion
from tasks.data import pull_data
from tasks.events import told
from tasks.job import Place, open_place
from tasks.progress import ProgressArtifact
from tasks.tracking import Tracking
from tasks.verbs import log, say_errors_once, verb


@dataclass(frozen=True)
class DdpJob(Place):
    """One run of a distributed training.

    Attributes:
        config_path: the file, relative to ``root``.
        gang: what is launched.
        launcher: what launches it.
    """

    config_path: str
    config: DdpConfig
    gang: Gang
    launcher: Launcher

    @property
    def output(self) -> Path:
        """What rank 0 left, once it is collected."""
        return self.folder / "output"

    @property
    def logs(self) -> Path:
        """The logs of all ranks, once they are collected."""
        return self.folder / "logs"


@contextmanager
def open_ddp_job(config_path: str) -> Iterator[DdpJob]:
    """Read the file and resolve the gang; on leaving, remove what was launched.

    Where only this process is stopped, as by the eviction of its pod, a gang on a cluster goes on: the run is started
    again and adopts it, and one whose run is over is found by the supervisor. The checkpoints stay, for a run that goes
    on from them, unless the training succeeded.

    Raises:
        UserError: no checkout, a file with mistakes (all of them), or a share that cannot be used as configured.
    """
    say_errors_once()
    root = find_root(Path.cwd())
    config = load_ddp(config_path, root)
    with open_place(root, share=config.data is not None) as place:
        gang = resolve(config, root, place.code, place.run_id)
        launcher = open_launcher(root, place.home)
        try:
            yield DdpJob(**vars(place), config_path=config_path, config=config, gang=gang, launcher=launcher)
        except TerminationSignal:
            launcher.leave(gang)
            raise
        except BaseException:
            launcher.remove(gang)
            raise
        launcher.remove(gang)
        launcher.clear(gang)


def resolve(config: DdpConfig, root: Path, code: CodeVersion, run_id: str) -> Gang:
    """Return the gang that a file asks for. Checkpoints are those of trainings of the same code, data and program."""
    data = _dataset(root, str(config.data)) if config.data else None
    same = (config.program, dict(config.environment), config.backend, data and data.digest, code.commit, code.diff)
    key = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:12]
    return Gang(
        name=f"{config.name}-{run_id.replace('-', '')[:8]}",
        flow_run_id=run_id,
        program=config.program,
        least=config.workers.least,
        most=config.workers.most,
        processes=config.worker_processes,
        cpu=config.worker.cpu,
        memory=int(parse_quantity(config.worker.memory)),
        gpus=config.worker.gpus,
        environment=config.environment,
        backend=config.backend,
        data=data,
        checkpoints=PurePosixPath(config.checkpoints) / f"{config.name}-{key}",
        scheduler=config.scheduler,
        max_restarts=config.max_restarts,
        rendezvous_s=config.rendezvous_s,
        below_least_s=config.below_min_s,
    )


def open_launcher(root: Path, home: Path) -> Launcher:
    """Return what launches gangs where this process runs: the cluster in a pod, torchrun anywhere else."""
    if in_pod():
        from infra.kubernetes.gang import launch as kubernetes

        return kubernetes.open_launcher(root, home)
    return torchrun.open_launcher(root, home)


def in_pod() -> bool:
    """Whether this process runs in a pod of a cluster."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


def remove_gang(parameters: Mapping[str, Any], run_id: str) -> None:
    """Remove what a flow run launched, from outside of it: it was cancelled, or has crashed."""
    root = find_root(Path.cwd())
    config = load_ddp(str(parameters["config"]), root)
    gang = resolve(config, root, code_version(root), run_id)
    open_launcher(root, home_folder(root)).remove(gang)


@verb("fetch-data")
def fetch_dataset(job: DdpJob) -> None:
    """Bring the dataset here; a gang on a cluster brings it to its own nodes.

    Raises:
        MissingDataError: it is neither here nor in the share.
        ShareError: the share does not answer (tried again).
    """
    if job.gang.data is not None and not in_pod():
        pull_data(job, job.gang.data.file, job.root / job.gang.data.folder)


@verb("launch")
def launch(job: DdpJob) -> None:
    """Start the gang, or adopt the one that an earlier attempt of this run has started.

    Raises:
        UserError: it cannot be started.
    """
    gang = job.gang
    workers = f"{gang.least} workers" if gang.least == gang.most else f"{gang.least} to {gang.most} workers"
    each = f" of {gang.processes} processes" if gang.processes > 1 else ""
    log().info("%s: %s on %s%s", gang.name, " ".join(gang.program), workers, each)
    job.launcher.launch(gang)


@verb("train")
def follow(job: DdpJob, tracking: Tracking) -> Outcome:
    """Follow the gang to its end: progress in the log, in the run's artifact and in MLflow; then keep all logs.

    Raises:
        UserError: it failed; the error has the last words of the rank that failed first.
    """
    run = tracking.open()
    progress = ProgressArtifact()

    def on_event(event: Mapping[str, Any]) -> None:
        if not is_sound(event):
            return
        if (line := told(dict(event))) is not None:
            log().info("train: %s", line)
        tracking.on_event(event)
        progress.on_event(event)
        with job.events.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": "train", **event}) + "\n")

    watch = Watch(on_event, lambda line: log().info("%s", line), lambda line: log().debug("%s", line))
    outcome = job.launcher.follow(job.gang, watch)
    job.launcher.collect(job.gang, job.folder)
    run.artifact(job.logs, "logs")
    log().info("logs of all ranks: %s", job.logs)
    if outcome.failure is not None:
        raise UserError(outcome.failure)
    again = f" after {outcome.restarts} restart{'s' * (outcome.restarts != 1)}" if outcome.restarts else ""
    log().info("trained%s", again)
    run.tags({"ddp.restarts": str(outcome.restarts)})
    return outcome


def is_sound(event: object) -> bool:
    """Whether a line of JSON, which any script may have written, is an event with what its kind needs.

    See :mod:`ml.events`; texts, parameters and the time left may be missing.
    """
    if not isinstance(event, dict) or not _finite(event.get("eta_s") or 0):
        return False
    kind = event.get("kind")
    if kind == "epoch":
        metrics = event.get("metrics")
        values = metrics.values() if isinstance(metrics, dict) else [None]
        told = all(isinstance(value, int | float) for value in values)
        return told and _finite(event.get("epoch"), event.get("epochs")) and bool(event["epochs"])
    if kind == "progress":
        texts = (event.get(key, "") for key in ("unit", "message"))
        return _finite(event.get("done"), event.get("total")) and all(isinstance(text, str) for text in texts)
    return kind == "note" and isinstance(event.get("message"), str) and isinstance(event.get("params") or {}, dict)


def _finite(*values: object) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def _dataset(root: Path, data_file: str) -> Dataset:
    digest = tracked_digest(root, data_file)
    path = yaml.safe_load((root / data_file).read_text(encoding="utf-8"))["outs"][0]["path"]
    return Dataset(data_file, str(PurePosixPath(data_file).parent / path), digest)
