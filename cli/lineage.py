"""``mlops lineage forklift@champion``: where a model comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.tracking.access import home_folder, mlflow_server, tracker_errors_for_people
from infra.tracking.lineage import Lineage
from infra.tracking.lineage import lineage as find_lineage


def lineage(
    reference: Annotated[
        str, typer.Argument(metavar="MODEL", help="forklift@champion, forklift@previous, forklift/3 or a run's id")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Show where a model comes from: commit, data, parameters, environment, run, metrics, who promoted it and why."""
    server = mlflow_server(home_folder())
    with tracker_errors_for_people(server):
        found = find_lineage(server, reference)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        show(found, Console(highlight=False))


def show(found: Lineage, console: Console) -> None:
    """Print a lineage, readable from 60 columns on."""
    commit, data, run, promotion = found.commit, found.data, found.run, found.promotion
    alias = f"  ({', '.join(found.aliases)})" if found.aliases else ""
    console.print(Text(f"{found.model or run['name']}{alias}", style="bold"))
    if promotion:
        _section(
            console,
            "Verdict",
            {
                promotion.get("verdict", ""): promotion.get("reason", ""),
                "by": promotion.get("by", ""),
                "at": promotion.get("at", ""),
                **({"history": promotion["history"]} if "\n" in promotion.get("history", "") else {}),
            },
        )
    dirty = " with uncommitted changes (artifact code/uncommitted.diff)" if commit.get("dirty") == "yes" else ""
    _section(
        console,
        "Code",
        {
            "commit": commit.get("commit", "unknown") + dirty,
            "subject": commit.get("subject", ""),
            "date": commit.get("date", ""),
            "branch": commit.get("branch", ""),
        },
    )
    _section(
        console,
        "Data",
        {
            "md5": data.get("digest") or "unknown",
            "tag": data.get("tag", ""),
            "remote": data.get("remote", ""),
            "test split": data.get("test_split", ""),
        },
    )
    _metrics(console, found.metrics)
    _section(console, "Parameters", found.params)
    versions = [f"{name} {value}" for name, value in found.environment.items() if name != "requirements.lock"]
    lock = found.environment["requirements.lock"]
    _section(console, "Environment", {"requirements.lock": lock and f"sha256 {lock}", "versions": ", ".join(versions)})
    _section(console, "Machine", {key.replace("memory_gb", "memory, GB"): item for key, item in found.machine.items()})
    ended = f" to {run['ended']}" if run["ended"] else ""
    _section(
        console,
        "Run",
        {
            "url": run["url"],
            "status": run["status"].lower(),
            "time": run["started"] + ended,
            "flow run": run["flow_run_url"],
        },
    )
    _files(console, found)
    console.print(Text("Make it again", style="bold"))
    console.print(Text(f"  {found.again}"))


def _section(console: Console, title: str, rows: Mapping[str, str]) -> None:
    """A title and its rows; what is empty is left out."""
    shown = {key: value for key, value in rows.items() if value}
    if not shown:
        return
    console.print(Text(title, style="bold"))
    table = _table()
    for key, value in shown.items():
        table.add_row(Text(f"  {key}", style="dim"), Text(value, overflow="fold"))
    console.print(table)


def _metrics(console: Console, metrics: Mapping[str, float]) -> None:
    """A row a metric, a column a class: ``mAP50/forklift`` stands in row mAP50, column forklift."""
    classes = list(dict.fromkeys(key.partition("/")[2] for key in metrics if "/" in key))
    names = list(dict.fromkeys(key.partition("/")[0] for key in metrics))
    if not names:
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(Text("Metrics on the test split", style="bold not dim"))
    for column in ("all", *classes):
        table.add_column(column, justify="right", overflow="fold")
    for name in names:
        values = [metrics.get(name), *(metrics.get(f"{name}/{item}") for item in classes)]
        table.add_row(f"  {name}", *("" if value is None else f"{value:.4f}" for value in values))
    console.print(table)


def _files(console: Console, found: Lineage) -> None:
    if not found.files:
        return
    console.print(Text("Files", style="bold"), Text("(sha256 below each)", style="dim"))
    for path, record in found.files.items():
        console.print(Text(f"  {path}  {record.size:,} bytes"))
        console.print(Text(f"    {record.sha256}", style="dim"), overflow="fold")


def _table() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    return table
