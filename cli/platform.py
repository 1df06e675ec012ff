"""``mlops platform``: the platform on the site's cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from configs.site import Site
    from infra.kubernetes.platform.status import ComponentState

platform = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@platform.command()
def apply(
    image: Annotated[
        str | None, typer.Option(help="Run this image instead of the site's, or of that `mlops build-image` made last.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Take over fields that somebody else has changed.")] = False,
) -> None:
    """Install the platform, or bring it up to date: what fits already is left alone, data and passwords always."""
    from cli.console import console, live_progress
    from configs.home import home_folder
    from infra.kubernetes.platform.install import PARTS, install, summary

    with live_progress(PARTS) as progress:
        installed = install(_site(), Path.cwd(), home_folder(), progress.report, image=image, force=force)
    console.print(f"\nThe platform is up: {summary(installed.applied)}. `mlops platform connect` leads to it.")


@platform.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON document.")] = False,
) -> None:
    """What runs there, of which image, and what is wrong; exit 1 if something is."""
    import json
    from dataclasses import asdict

    from cli.console import console
    from configs.home import home_folder
    from infra.kubernetes.client import api_errors_for_people
    from infra.kubernetes.client import connect as connect_api
    from infra.kubernetes.platform.choice import cluster_of
    from infra.kubernetes.platform.status import component_states
    from infra.stack.connection import load_connection
    from infra.stack.processes import is_running

    cluster = cluster_of(_site())
    with api_errors_for_people():
        states = component_states(connect_api(cluster))
    if as_json:
        print(json.dumps([asdict(state) for state in states], indent=2))
    else:
        console.print(_table(states))
        connection = load_connection(home_folder())
        if connection is not None and connection.namespace == cluster.namespace:
            lives = is_running(connection.part)
            told = f"Prefect  {connection.prefect_url}\nMLflow   {connection.mlflow_url}"
            console.print(
                f"\n{told}" if lives else "\nThe connection has ended: mlops platform connect", soft_wrap=True
            )
    raise typer.Exit(0 if all(state.ready for state in states) else 1)


@platform.command()
def delete(
    data: Annotated[
        bool, typer.Option("--data", help="Delete databases, artifacts and passwords, too. Nothing brings them back.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take the platform away; its data stays unless `--data` says otherwise, and the share always."""
    from cli.console import console, live_progress
    from configs.home import home_folder
    from infra.kubernetes.client import api_errors_for_people
    from infra.kubernetes.client import connect as connect_api
    from infra.kubernetes.platform.choice import cluster_of
    from infra.kubernetes.platform.connect import disconnect as end_connection
    from infra.kubernetes.platform.delete import delete as delete_platform
    from infra.kubernetes.platform.delete import running_jobs

    cluster = cluster_of(_site())
    client = connect_api(cluster)
    with api_errors_for_people():
        running = running_jobs(client)
    if not yes:
        what = "the platform with all runs, models and passwords" if data else "the platform, without its data"
        also = f", and {len(running)} runs that go on now" if running else ""
        typer.confirm(f"Delete {what}{also}, from namespace {cluster.namespace}?", abort=True)
    end_connection(home_folder())
    with live_progress(("objects", "data")) as progress:
        delete_platform(client, cluster, progress.report, data=data)
    console.print("\nThe platform is gone." + ("" if data else " Its data is kept."))


@platform.command()
def connect() -> None:
    """Forward Prefect and MLflow to this machine and make `.env` name them, until `mlops platform disconnect`."""
    from cli.console import console
    from configs.home import home_folder
    from infra.kubernetes.platform.connect import connect as lead
    from infra.stack.connection import logins_file

    home = home_folder()
    found = lead(_site(), Path.cwd(), home)
    console.print(
        f"Commands in this checkout talk to namespace {found.namespace}.\n"
        f"  Prefect  {found.prefect_url}\n"
        f"  MLflow   {found.mlflow_url}\n"
        f"User and passwords: {logins_file(home, found.namespace)}",
        soft_wrap=True,
    )


@platform.command()
def disconnect() -> None:
    """End the connection: commands in this checkout talk to the stack again."""
    from cli.console import console
    from configs.home import home_folder
    from infra.kubernetes.platform.connect import disconnect as end

    console.print("Disconnected." if end(home_folder()) else "There was no connection.")


def _site() -> Site:
    from configs.site import SITE_FILE, load_site

    return load_site(SITE_FILE)


def _table(states: list[ComponentState]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("component", "ready", "image", "restarts", "since", "what is wrong"):
        table.add_column(column, overflow="fold")
    for state in states:
        trouble = state.trouble.what if state.trouble else ""
        mark = "[green]✓[/]" if state.ready else "[red]✗[/]"
        restarts = str(state.restarts) if state.pod else ""
        table.add_row(state.name, mark, _image(state), restarts, _since(state.since), Text(trouble))
    return table


def _image(state: ComponentState) -> str:
    """Return the image's name with the commit in it, where that is known, else with its tag or short digest."""
    name, _, digest = state.image.rpartition("/")[2].partition("@sha256:")
    if state.commit:
        return f"{name} {state.commit[:7]}"
    return f"{name}@{digest[:12]}" if digest else name


def _since(text: str) -> str:
    from datetime import datetime

    return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M}" if text else ""
