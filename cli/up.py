"""``mlops up``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import ShareOption


def up(
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on. Anything but loopback makes both servers ask for a password."),
    ] = None,
    prefect_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the Prefect server; if not given 4200 or a free one."),
    ] = None,
    mlflow_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the MLflow server; if not given 5000 or a free one.")
    ] = None,
    share: ShareOption = None,
) -> None:
    """Start what is missing of the stack; what runs is left alone."""
    from cli.console import console, live_progress
    from configs.home import home_folder
    from infra.stack.settling import Wanted
    from infra.stack.start import PARTS
    from infra.stack.start import up as start

    if share is not None:
        from cli.sharing import use_share
        from infra.repository.git import find_root

        use_share(share, find_root(Path.cwd()), home_folder(), console)
    with live_progress(PARTS) as progress:
        started = start(Path.cwd(), home_folder(), Wanted(host, prefect_port, mlflow_port), progress.report)
    stack = started.stack
    head = "The stack is up." if started.seconds else "The stack is already running; nothing to do."
    console.print(f"\n{head}\n  Prefect  {stack.prefect_url}\n  MLflow   {stack.mlflow_url}", soft_wrap=True)
