"""``down``: stop everything of the stack, runs first, and leave no process behind."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import psutil

from infra.stack import processes, rest
from infra.stack.connection import load_connection, save_connection
from infra.stack.environment import put_dotenv_back
from infra.stack.start import Report
from infra.stack.state import MLFLOW, PREFECT, WORKER, Stack, change_lock, read_stack, save_stack

RUNS_LIMIT_S = 45.0  # longer than the worker waits for its runs
UNFINISHED = ("PENDING", "RUNNING", "CANCELLING")
SERVERS_LIMIT_S = 15.0


def down(home: Path, report: Report) -> list[str]:
    """Stop the stack of ``home``; returns the names of the flow runs that were stopped.

    The worker and the runs go first, while the servers can still be told how they ended: runs are shown as Crashed,
    keep their checkpoint, and go on from it when they are retried or started again. Processes whose parents are gone
    are found by their mark. Data, settings and ports stay; a connection to a cluster ends.
    Nothing runs: nothing is done.
    """
    if not home.exists():
        return []
    with change_lock(home, lambda: report("stack", "waiting", "for another mlops command")):
        _disconnect(home)
        stack = read_stack(home)
        everything = processes.marked(home)
        running = _running(stack, processes.flow_run_ids(everything))
        names = sorted(running.values())
        servers = [
            process for name in (PREFECT, MLFLOW) if stack and (process := processes.find(stack.parts.get(name)))
        ]
        workers = [process for process in everything if process not in servers]
        if workers:
            report(WORKER, "stopping", f"and {', '.join(names)}" if names else "")
            _stop_runs(stack, workers)
            if stack and running:
                _report_ended(stack, set(running))
            report(WORKER, "stopped", "")
        for name in (PREFECT, MLFLOW):
            if stack and processes.find(stack.parts.get(name)):
                report(name, "stopping", "")
        processes.stop(servers, SERVERS_LIMIT_S)
        processes.stop(processes.marked(home), 1)  # whatever was started in the meantime
        for name in (PREFECT, MLFLOW):
            if stack and name in stack.parts:
                report(name, "stopped", "")
        if stack:
            save_stack(replace(stack, parts={}))
        return names


def _disconnect(home: Path) -> None:
    connection = load_connection(home)
    if connection is None:
        return
    forwarding = processes.find(connection.part)
    if forwarding is not None:
        processes.stop([forwarding], SERVERS_LIMIT_S)
    save_connection(home, None)
    put_dotenv_back(home, connection.checkout)


def _stop_runs(stack: Stack | None, workers: list[psutil.Process]) -> None:
    """SIGTERM the worker, which stops its runs and reports them; then whatever it does not know of."""
    worker = processes.find(stack.parts.get(WORKER)) if stack else None
    if worker:
        processes.terminate([worker])
        processes.wait_gone([worker], RUNS_LIMIT_S)
    left = processes.wait_gone(workers, 0)
    runs = [process for process in left if processes.is_flow_process(process)]
    processes.terminate(runs)
    processes.wait_gone(runs, RUNS_LIMIT_S)
    processes.stop(left, 3)


def _running(stack: Stack | None, ids: set[str]) -> dict[str, str]:
    """Of the flow runs ``ids`` those that have not ended, as id to name; their ids alone when the server is gone."""
    if not stack or not ids:
        return {}
    try:
        body = {"flow_runs": {"id": {"any_": sorted(ids)}}, "limit": len(ids)}
        runs = rest.prefect(stack, "/flow_runs/filter", body)
    except rest.UnreachableError:
        return {key: key for key in ids}
    return {run["id"]: run["name"] for run in runs if run["state_type"] in UNFINISHED}


def _report_ended(stack: Stack, ids: set[str]) -> None:
    """Set runs that were killed before they could say so to Crashed: nobody else would, the server stops next."""
    state = {"type": "CRASHED", "name": "Crashed", "message": "Stopped by `mlops down`. Retry the run; it resumes."}
    for key in _running(stack, ids):
        with contextlib.suppress(rest.UnreachableError):
            rest.prefect(stack, f"/flow_runs/{key}/set_state", {"state": state, "force": True})
