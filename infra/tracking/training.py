"""What a training tells the tracker about itself: plain values, collected by the caller."""

from __future__ import annotations

import getpass
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.repository.git import CodeVersion
from infra.tracking.machine import Machine
from infra.tracking.server import without_password

JOURNAL = "mlops.journal"
TRAIN_KEY = "mlops.train_key"
TEST_SPLIT = "mlops.test_split"


@dataclass(frozen=True)
class DataVersion:
    """The dataset: ``digest`` the md5 in ``data.dvc`` (up to 36 characters), ``tag`` its git tag, if any."""

    name: str
    digest: str
    remote: str = ""
    tag: str = ""


@dataclass(frozen=True)
class Training:
    """One training, as its MLflow run shows it from the start.

    Attributes:
        id: names the training for good, for instance the flow run's id. Started again with the same id, a training
            goes on in the same MLflow run.
        name: the recipe's name; names the experiment and the registered model.
        title: name of the run in MLflow.
        params: the recipe, nested; shown flattened, with dots.
        lock_sha256: hash of ``requirements.lock``.
        train_key: hash of the train stage's inputs in ``dvc.lock``: equal for trainings that would be the same.
        flow, flow_run_id, flow_run_url: the Prefect flow that trains, if there is one.
        files: artifacts known from the start: path in MLflow to file (``dvc.lock``, the recipe).
    """

    id: str
    name: str
    title: str
    params: Mapping[str, Any]
    code: CodeVersion
    data: DataVersion
    machine: Machine
    lock_sha256: str
    train_key: str = ""
    flow: str = ""
    flow_run_id: str = ""
    flow_run_url: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)


def run_tags(training: Training) -> dict[str, str]:
    """The tags of a training's run: those MLflow's UI knows, and ours. Empty ones are left out."""
    code, data, machine = training.code, training.data, training.machine
    tags = {
        "mlflow.user": user(),
        "mlflow.source.type": "PROJECT",
        "mlflow.source.name": training.flow or "dvc repro",
        "mlflow.source.git.commit": code.commit,
        "mlflow.source.git.branch": code.branch,
        "mlflow.note.content": describe_training(training),
        JOURNAL: training.id,
        TRAIN_KEY: training.train_key,
        "git.commit": code.commit,
        "git.branch": code.branch,
        "git.dirty": "yes" if code.dirty else "no",
        "git.subject": code.subject,
        "git.date": code.date,
        "data.digest": data.digest,
        "data.tag": data.tag,
        "data.remote": without_password(data.remote),
        "requirements.lock": training.lock_sha256,
        "machine.hostname": machine.hostname,
        "machine.pod": machine.pod,
        "machine.system": machine.system,
        "machine.cpu": machine.cpu,
        "machine.cores": str(machine.cores),
        "machine.memory_gb": str(machine.memory_gb),
        "machine.gpu": ", ".join(machine.gpus) or "none",
        "version.python": machine.python,
        **{f"version.{package}": version for package, version in machine.versions.items()},
        "prefect.flow_run_id": training.flow_run_id,
        "prefect.flow_run_url": training.flow_run_url,
        **training.tags,
    }
    return {key: value for key, value in tags.items() if value}


def describe_training(training: Training) -> str:
    """The run's description in Markdown: what one wants to know first."""
    code, data, machine = training.code, training.data, training.machine
    dirty = " with uncommitted changes (`code/uncommitted.diff`)" if code.dirty else ""
    rows = [
        ("code", f"`{code.commit[:12]}` {code.subject}{dirty}".rstrip()),
        ("data", f"{data.tag or data.name}, md5 `{data.digest}`"),
        ("machine", f"{machine.hostname}: {machine.cpu}, {machine.cores} cores, {machine.memory_gb:g} GB"),
        ("GPU", ", ".join(machine.gpus)),
        ("flow run", f"[{training.flow_run_id}]({training.flow_run_url})" if training.flow_run_url else ""),
    ]
    return "| | |\n|---|---|\n" + "".join(f"| {key} | {value} |\n" for key, value in rows if value)


def data_source(data: DataVersion) -> str:
    """Where the dataset is, as the JSON text that MLflow keeps with a dataset input."""
    return json.dumps({"remote": without_password(data.remote), "tag": data.tag, "dvc": f"{data.name}.dvc"})


def flatten(values: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Nested mappings as one: ``{"train": {"epochs": 7}}`` becomes ``{"train.epochs": 7}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}{separator}{inner}": item for inner, item in flatten(value, separator).items()}
        else:
            flat[str(key)] = value
    return flat


def param_texts(params: Mapping[str, Any]) -> dict[str, str]:
    """Flat parameters as text, lists as in YAML (``[forklift, person]``)."""
    return {
        key: f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)
        for key, value in flatten(params).items()
    }


def user() -> str:
    """Who is at work: ``name@host``."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"
    return f"{name}@{platform.node() or 'unknown'}"
