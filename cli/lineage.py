"""``mlops lineage forklift@champion``: where a model comes from."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from configs.home import home_folder
from infra.tracking.access import mlflow_server, tracker_errors_for_people
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
    _section(console, "Parameters", _by_section(found.params))
    versions = [f"{name} {value}" for name, value in found.environment.items() if name != "requirements.lock"]
    lock = found.environment["requirements.lock"]
    _section(console, "Environment", {"lock sha256": lock, "versions": ", ".join(versions)})
    _section(console, "Machine", {key.replace("memory_gb", "memory, GB"): item for key, item in found.machine.items()})
    ended = f" to {run['ended']}" if run["ended"] else ""
    _section(
        console,
        "Run",
        {
            "status": run["status"].lower(),
            "time": run["started"] + ended,
            "id": run["id"],
        },
    )
    for url in filter(None, (run["url"], run["flow_run_url"])):
        console.print(Text(f"  {url}"), soft_wrap=True)
    _files(console, found)
    console.print(Text("Make it again", style="bold"))
    console.print(Text(f"  {found.again}"))


def _section(console: Console, title: str, rows: Mapping[str, str]) -> None:
    """A title and its rows, values wrapped below each other; what is empty is left out, addresses stay whole."""
    shown = {key: value for key, value in rows.items() if value}
    if not shown:
        return
    console.print(Text(title, style="bold"))
    indent = 2 + max(len(key) for key in shown) + 2
    for key, value in shown.items():
        lines: list[str] = []
        for line in value.splitlines():
            room = max(console.width - indent, 20)
            lines += textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False)
        for number, line in enumerate(lines):
            label = f"  {key}".ljust(indent) if number == 0 else " " * indent
            console.print(Text.assemble((label, "dim"), line), soft_wrap=True)


def _by_section(params: Mapping[str, str]) -> dict[str, str]:
    """A row for each section of the recipe, those of no section last."""
    rows: dict[str, list[str]] = {}
    for key, value in sorted(params.items(), key=lambda item: "." not in item[0]):
        section, _, name = key.rpartition(".")
        rows.setdefault(section or "other", []).append(f"{name} {value}")
    return {section: ", ".join(values) for section, values in rows.items()}


def _metrics(console: Console, metrics: Mapping[str, float]) -> None:
    """A row a metric, a column a class: ``mAP50/forklift`` stands in row mAP50, column forklift."""
    classes = list(dict.fromkeys(key.partition("/")[2] for key in metrics if "/" in key))
    names = list(dict.fromkeys(key.partition("/")[0] for key in metrics))
    if not names:
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(Text("Metrics on the test split", style="bold not dim"))
    for column in ("all", *classes):
        table.add_column(Text(column), justify="right", overflow="fold")
    for name in names:
        values = [metrics.get(name), *(metrics.get(f"{name}/{item}") for item in classes)]
        table.add_row(Text(f"  {name}"), *("" if value is None else f"{value:.4f}" for value in values))
    console.print(table)


def _files(console: Console, found: Lineage) -> None:
    if not found.files:
        return
    console.print(Text("Files", style="bold"), Text("(sha256 below each)", style="dim"))
    for path, record in found.files.items():
        console.print(Text(f"  {path}  {record.size:,} bytes"), soft_wrap=True)
        console.print(Text(f"    {record.sha256}", style="dim"), soft_wrap=True)
