"""What the MLflow server knows, as values, and how asking it can fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


class TrackerError(Exception):
    """The MLflow server did not do what was asked."""


class UnreachableError(TrackerError):
    """It may work later: nobody answers, it takes too long, the server is broken."""


class DeniedError(UnreachableError):
    """It may work later, with another user or password."""


class RefusedError(TrackerError):
    """It will never work: the server understood and refused.

    Attributes:
        code: MLflow's error code (``RESOURCE_DOES_NOT_EXIST``, ``INVALID_PARAMETER_VALUE``, ...).
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


@dataclass(frozen=True)
class Dataset:
    """A dataset input of a run; ``source`` is the JSON text that was given with it."""

    name: str
    digest: str
    source: str


@dataclass(frozen=True)
class Run:
    """A run as the server knows it. ``artifacts`` is the server's path of its artifacts, without scheme."""

    id: str
    experiment_id: str
    name: str
    status: str
    start_ms: int
    end_ms: int | None
    artifacts: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    datasets: tuple[Dataset, ...] = ()


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    name: str
    number: int
    run_id: str
    created_ms: int
    description: str
    tags: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"


def parse_run(values: Mapping[str, Any]) -> Run:
    """A run from MLflow's JSON."""
    info, data = values["info"], values.get("data", {})
    root = str(info["artifact_uri"])
    if not root.startswith("mlflow-artifacts:"):
        raise UnreachableError(
            f"artifacts at {root} do not go through the server: start it with --artifacts-destination"
        )
    inputs = values.get("inputs", {}).get("dataset_inputs", [])
    return Run(
        id=info["run_id"],
        experiment_id=info["experiment_id"],
        name=info.get("run_name", ""),
        status=info["status"],
        start_ms=int(info["start_time"]),
        end_ms=int(info["end_time"]) if info.get("end_time") else None,
        artifacts=urlsplit(root).path.strip("/"),
        tags=mapping(data.get("tags", [])),
        params=mapping(data.get("params", [])),
        metrics={item["key"]: float(item["value"]) for item in data.get("metrics", [])},
        datasets=tuple(
            Dataset(item["dataset"]["name"], item["dataset"]["digest"], item["dataset"].get("source", ""))
            for item in inputs
        ),
    )


def parse_version(values: Mapping[str, Any]) -> Version:
    """A model version from MLflow's JSON."""
    return Version(
        name=values["name"],
        number=int(values["version"]),
        run_id=values.get("run_id", ""),
        created_ms=int(values.get("creation_timestamp", 0)),
        description=values.get("description", ""),
        tags=mapping(values.get("tags", [])),
    )


def mapping(pairs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """MLflow's list of ``key`` and ``value`` as a dictionary."""
    return {pair["key"]: str(pair.get("value", "")) for pair in pairs}
