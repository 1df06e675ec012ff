"""Making a registered model again and comparing, as a task of a run."""

from __future__ import annotations

from pathlib import Path

from prefect.artifacts import create_table_artifact

from configs.home import home_folder
from configs.problems import Problem, UserError
from infra.repository.code import find_root, need_checkout
from infra.reproduction import Reproduction, reproduce
from infra.tracking.access import mlflow_server, tracker_errors_for_people
from tasks.verbs import log, verb


@verb("reproduce")
def reproduce_version(model: str, tolerance: float, *, keep: bool) -> Reproduction:
    """Train ``model`` again from its own commit, data and environment, and compare.

    Raises:
        UserError: it cannot be made again, or what came out differs by more than ``tolerance``.
    """
    root = find_root(Path.cwd())
    need_checkout(root, "reproducing a model")
    home = home_folder(root)
    server = mlflow_server(home)
    with tracker_errors_for_people(server):
        result = reproduce(
            server, model, root, home, tolerance=tolerance, keep=keep, say=lambda line: log().info("%s", line)
        )
    rows = [
        {"what": row.what, "original": row.original, "again": row.again, "same": _mark(row.holds)}
        for row in result.evidence
    ]
    create_table_artifact(rows, key="evidence", description=result.verdict())
    if not result.succeeded:
        raise UserError(
            Problem(result.model, result.verdict(), "the table of evidence shows where; --keep leaves the worktree")
        )
    log().info("%s", result.verdict())
    return result


def _mark(holds: bool | None) -> str:
    return {True: "yes", False: "no", None: ""}[holds]
