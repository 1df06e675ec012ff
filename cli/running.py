"""Runs a flow where ``--on`` says, watches it, and shows what it came to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.console import Console

from cli.cluster import use_cluster
from cli.options import Where
from infra.stack.environment import client_environment, stack_environment


def run_flow(
    flow: str, parameters: dict[str, Any], on: Where, root: Path, home: Path, console: Console, *, in_graph: bool
) -> int:
    """Run the deployment of ``flow`` to its end and return the exit status.

    Args:
        in_graph: the results are outputs of DVC's graph, in the checkout; else they are in the run's folder and in the
            tracker.

    Raises:
        UserError: no such deployment, or the servers do not answer or refuse the parameters.
    """
    if on is Where.KUBERNETES:
        use_cluster(root, home, console)
        environment, brought_by = client_environment(home), "mlops platform apply"
    else:
        # Also while this checkout is connected to a platform, which knows no local deployments.
        environment, brought_by = stack_environment(home), "mlops up"
    os.environ.update(environment)

    from cli.following import follow
    from cli.results import show, show_from_cluster

    run = follow(f"{flow}/{on}", parameters, home, console, brought_by=brought_by)
    if run.completed and on is Where.KUBERNETES:
        show_from_cluster(run, home, console, in_graph=in_graph)
    elif run.completed:
        folder = Path(os.path.relpath(home, root)) / "runs" / str(run.id)
        report = "reports/latest.md" if in_graph else str(folder / "report.md")
        show(run, home, console, report, in_graph=in_graph)
    return run.exit_status
