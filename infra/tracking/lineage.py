"""Where a model comes from: from a name to commit, data, parameters, environment, run, metrics and verdict."""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from configs.problems import Problem, UserError
from infra.tracking import registry
from infra.tracking.entities import Run, Version
from infra.tracking.manifest import Manifest, read_manifest
from infra.tracking.server import MlflowServer
from infra.tracking.training import TEST_SPLIT, TRAIN_KEY

Value = TypeVar("Value")
RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Lineage:
    """All that is known of a model version, or of a run that registered none.

    Attributes:
        model: ``forklift/3``, empty for a run without a version.
        aliases: aliases that point to it now.
        commit: ``commit``, ``branch``, ``dirty`` (yes or no), ``subject``, ``date``.
        data: ``digest`` (md5 of ``data.dvc``), ``tag``, ``remote``, ``test_split``.
        params: the recipe, flat.
        environment: ``requirements.lock`` (sha256), ``python`` and versions by package.
        machine: hostname, system, cpu, cores, memory_gb, gpu.
        run: ``id``, ``url``, ``name``, ``status``, ``started``, ``ended``, ``train_key``, ``flow_run_url``.
        metrics: on the test split, per class as ``mAP50/forklift``.
        promotion: ``verdict``, ``by``, ``at``, ``reason``, ``history``; empty if never judged.
        files: size and sha256 by path.
        again: the command that makes it again.
    """

    model: str
    aliases: tuple[str, ...]
    commit: Mapping[str, str]
    data: Mapping[str, str]
    params: Mapping[str, str]
    environment: Mapping[str, str]
    machine: Mapping[str, str]
    run: Mapping[str, str]
    metrics: Mapping[str, float]
    promotion: Mapping[str, str]
    files: Manifest = field(default_factory=dict)
    again: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def resolve(server: MlflowServer, reference: str) -> tuple[Version | None, Run]:
    """The version and run that ``forklift@champion``, ``forklift/3``, ``forklift`` or a run's id names.

    ``models:/`` in front is allowed; a name alone means its champion; a run's id gives its version if it has one.

    Raises:
        UserError: there is none; lists what there is.
    """
    text = reference.removeprefix("models:/")
    if RUN_ID.fullmatch(text):
        run = server.run(text)
        if run is None:
            raise UserError(Problem(reference, "is no run of this server", "its id is in the run's address"))
        versions = [version for name in server.model_names() for version in server.versions(name, run.id)]
        return (versions[-1] if versions else None), run
    version = resolve_version(server, text)
    run = server.run(version.run_id) if version.run_id else None
    if run is None:
        raise UserError(Problem(str(version), "its run was deleted", "restore it in MLflow, or name another version"))
    return version, run


def resolve_version(server: MlflowServer, reference: str) -> Version:
    """As :func:`resolve`, for names of versions only."""
    text = reference.removeprefix("models:/")
    match = re.fullmatch(r"([^@/]+)(?:@([\w-]+)|/(\d+))?", text)
    if match is None:
        raise UserError(Problem(reference, "names no model", "write forklift@champion or forklift/3"))
    name, alias, number = match[1], match[2], match[3]
    if alias is None and number is None:
        alias = registry.CHAMPION
    if server.model(name) is None:
        error = registry.unknown_model(server, name)
        near = difflib.get_close_matches(name, server.model_names(), n=1)
        raise UserError(Problem(name, "is no registered model", f"did you mean {near[0]}?")) if near else error
    aliases = server.aliases(name)
    wanted = int(number) if number else aliases.get(alias)
    version = server.version(name, wanted) if wanted else None
    if version is None:
        known = [f"{name}@{item}" for item in sorted(aliases)]
        known += [str(item) for item in server.versions(name)[-10:]]
        raise UserError(Problem(text, "is no version", f"there are: {', '.join(known)}" if known else "train one"))
    return version


def lineage(server: MlflowServer, reference: str) -> Lineage:
    """Everything about the model or run that ``reference`` names (see :func:`resolve`).

    Raises:
        UserError: there is no such model, version, alias or run.
        TrackerError: the server does not answer.
    """
    version, run = resolve(server, reference)
    tags, found = run.tags, dict(version.tags) if version else {}
    dataset = run.datasets[0] if run.datasets else None
    metrics = registry.version_metrics(version) if version else {}
    model = str(version) if version else ""
    aliases = server.aliases(version.name) if version else {}
    machine = _below(tags, "machine.")
    return Lineage(
        model=model,
        aliases=tuple(sorted(alias for alias, number in aliases.items() if version and number == version.number)),
        commit=_below(tags, "git."),
        data={
            **_below(tags, "data."),
            "digest": dataset.digest if dataset else tags.get("data.digest", ""),
            "test_split": found.get(TEST_SPLIT, ""),
        },
        params=dict(sorted(run.params.items())),
        environment={"requirements.lock": tags.get("requirements.lock", ""), **_below(tags, "version.")},
        machine={key: machine[key] for key in sorted(machine)},
        run={
            "id": run.id,
            "url": server.run_url(run),
            "name": run.name,
            "status": run.status,
            "started": _time(run.start_ms),
            "ended": _time(run.end_ms),
            "train_key": tags.get(TRAIN_KEY, ""),
            "flow_run_url": tags.get("prefect.flow_run_url", ""),
        },
        metrics=metrics or _below(run.metrics, "test/"),
        promotion=_below(found, "promotion."),
        files=read_manifest(server, run) or {},
        again=f"mlops reproduce {model or run.id}",
    )


def _below(values: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def _time(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).isoformat(timespec="seconds")
