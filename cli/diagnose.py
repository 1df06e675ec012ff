"""``mlops diagnose``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lightkube import Client

POOL = "kubernetes"


def diagnose(
    run: Annotated[
        str | None, typer.Argument(help="Name or id of a run; left out: the newest that failed or does not go on.")
    ] = None,
    pool: Annotated[str, typer.Option(help="Where to look for it.")] = POOL,
) -> None:
    """Say why a run failed or does not begin, and what to do; exit 1 if something is wrong."""
    import asyncio

    from cli.console import console
    from configs.home import home_folder
    from infra.kubernetes.diagnosis.ask import ask
    from infra.stack.connection import load_connection
    from infra.stack.environment import client_environment

    home = home_folder()
    os.environ.update(client_environment(home))
    client, namespace = _cluster()
    if namespace and load_connection(home) is None:
        said = "Runs of this machine's stack, not the platform on the cluster: mlops platform connect leads there."
        console.print(said, style="yellow", soft_wrap=True)
    answer = asyncio.run(ask(client, namespace, pool, run))
    if answer is None:
        console.print(f"No run of work pool {pool} is in trouble.")
        return
    console.print(f"Run [bold]{answer.run}[/bold] ({answer.id}) is {answer.state}", soft_wrap=True)
    if not answer.told:
        console.print("Nothing is wrong with it, as far as can be seen.")
        return
    console.print(answer.told, markup=False, soft_wrap=True)
    raise typer.Exit(1)


def _cluster() -> tuple[Client | None, str]:
    """Return the way to the site's cluster, None where it names none or there is none; and the namespace."""
    from cli.console import console
    from configs.problems import UserError
    from configs.site import SITE_FILE, load_site
    from infra.kubernetes.client import connect

    site = Path(SITE_FILE)
    cluster = load_site(site).cluster if site.is_file() else None
    if cluster is None:
        return None, ""
    try:
        return connect(cluster), cluster.namespace
    except UserError as error:
        console.print(f"The cluster is not asked: {error}", style="yellow", markup=False, soft_wrap=True)
        return None, cluster.namespace
