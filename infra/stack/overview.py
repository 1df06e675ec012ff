"""What runs where, the last runs, and the champions; answers with everything down as well."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from infra.stack import ports, processes, rest
from infra.stack.state import MLFLOW, PREFECT, WORKER, Stack, load_stack

CHAMPION = "champion"
LAST_RUNS = 5


@dataclass(frozen=True)
class PartView:
    """One part: ``state`` is running, silent (the process lives but does not answer) or stopped; memory in bytes."""

    name: str
    state: str
    pid: int | None = None
    address: str | None = None
    uptime_s: float | None = None
    memory: int | None = None


@dataclass(frozen=True)
class RunView:
    """One flow run. ``started`` is UTC in ISO 8601 form, None before its start; ``seconds`` so far or in all."""

    name: str
    flow: str
    state: str
    started: str | None
    seconds: float


@dataclass(frozen=True)
class ChampionView:
    """The version of a registered model with the alias ``champion``, and what its run measured (name to value)."""

    model: str
    version: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Overview:
    """The whole view; ``problems`` says which question had no answer."""

    parts: tuple[PartView, ...]
    runs: tuple[RunView, ...] = ()
    champions: tuple[ChampionView, ...] = ()
    problems: tuple[str, ...] = ()


def overview(home: Path) -> Overview:
    """Look at the stack of ``home``; takes a few seconds at most, whatever state it is in."""
    stack = load_stack(home)
    if stack is None:
        return Overview(tuple(PartView(name, "stopped") for name in (PREFECT, MLFLOW, WORKER)))
    parts = tuple(_part(stack, name) for name in (PREFECT, MLFLOW, WORKER))
    up = {part.name for part in parts if part.state == "running"}
    problems = [told for part in parts if part.state == "stopped" and (told := _taken(stack, part.name))]
    runs: tuple[RunView, ...] = ()
    champions: tuple[ChampionView, ...] = ()
    with ThreadPoolExecutor() as pool:
        asked_runs = pool.submit(_runs, stack) if PREFECT in up else None
        asked_champions = pool.submit(_champions, stack) if MLFLOW in up else None
        try:
            runs = asked_runs.result() if asked_runs else ()
        except rest.UnreachableError as error:
            problems.append(str(error))
        try:
            champions = asked_champions.result() if asked_champions else ()
        except rest.UnreachableError as error:
            problems.append(str(error))
    return Overview(parts, runs, champions, tuple(problems))


def _part(stack: Stack, name: str) -> PartView:
    process = processes.find(stack.parts.get(name))
    if process is None:
        return PartView(name, "stopped")
    address = {PREFECT: stack.prefect_url, MLFLOW: stack.mlflow_url}.get(name)
    health = {PREFECT: f"{stack.prefect_api_url}/health", MLFLOW: f"{stack.mlflow_api_url}/health"}.get(name)
    state = "running" if health is None or rest.answers(health) else "silent"
    uptime = max(0.0, time.time() - stack.parts[name].started)
    return PartView(name, state, process.pid, address, uptime, memory(process))


def _taken(stack: Stack, name: str) -> str:
    """Who has the port of a server that is gone."""
    port = stack.port(name)
    told = ports.stranger(stack.host, port) if port else ""
    return told and f"{name} is gone, and its {told}"


def memory(process: psutil.Process) -> int | None:
    """Resident bytes of a process without its children; None when it has ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return None


def _runs(stack: Stack) -> tuple[RunView, ...]:
    # What is waiting for a later day is no news: only what has been started or should have been.
    states = ["RUNNING", "PENDING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED", "CANCELLING", "PAUSED"]
    wanted = {"state": {"type": {"any_": states}}, "parent_task_run_id": {"is_null_": True}}
    body = {"flow_runs": wanted, "sort": "EXPECTED_START_TIME_DESC", "limit": LAST_RUNS}
    runs = rest.prefect(stack, "/flow_runs/filter", body)
    ids = sorted({run["flow_id"] for run in runs})
    flows = rest.prefect(stack, "/flows/filter", {"flows": {"id": {"any_": ids}}}) if ids else []
    names = {flow["id"]: flow["name"] for flow in flows}
    return tuple(
        RunView(
            name=run["name"],
            flow=names.get(run["flow_id"], ""),
            state=run["state_name"],
            started=run["start_time"],
            seconds=run["estimated_run_time"],
        )
        for run in runs
    )


def _champions(stack: Stack) -> tuple[ChampionView, ...]:
    models = rest.mlflow(stack, "/registered-models/search?max_results=50").get("registered_models", [])
    found = []
    for model in models:
        aliases = {alias["alias"]: alias["version"] for alias in model.get("aliases", [])}
        if CHAMPION in aliases:
            found.append(_champion(stack, model["name"], str(aliases[CHAMPION])))
    return tuple(found)


def _champion(stack: Stack, model: str, version: str) -> ChampionView:
    answer = rest.mlflow(stack, f"/model-versions/get?name={quote(model, safe='')}&version={version}")
    run_id = answer["model_version"].get("run_id")
    data: dict[str, Any] = {}
    if run_id:
        data = rest.mlflow(stack, f"/runs/get?run_id={quote(run_id, safe='')}")["run"]["data"]
    metrics = {metric["key"]: float(metric["value"]) for metric in data.get("metrics", [])}
    return ChampionView(model, version, metrics)
