"""``mlops rollback forklift``: the previous champion takes its place again."""

from __future__ import annotations

from typing import Annotated

import typer

from configs.home import home_folder
from infra.tracking import registry
from infra.tracking.access import mlflow_server, tracker_errors_for_people
from infra.tracking.training import user


def rollback(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="name of the registered model, for instance forklift")],
    why: Annotated[str, typer.Option("--why", help="kept with both versions")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
) -> None:
    """Swap champion and previous champion of a model."""
    home = home_folder()
    server = mlflow_server(home)
    with tracker_errors_for_people(server):
        registry.settle(server, home, name)
        plan = registry.rollback_plan(server, name)
    champion, previous = plan
    for alias, version, future in (("champion", champion, "previous"), ("previous", previous, "champion")):
        reason = version.tags.get(registry.REASON, "")
        typer.echo(f"{alias} {version}{f' ({reason})' if reason else ''} becomes {future}")
    if not yes and not typer.confirm("Roll back?"):
        typer.echo("nothing changed")
        raise typer.Exit(1)
    with tracker_errors_for_people(server):
        registry.rollback(server, home, plan, user(), why)
    typer.echo(f"champion of {name} is {previous}")
    typer.echo(f"  {server.version_url(name, previous.number)}")
