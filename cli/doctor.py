"""``mlops doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MARKS = {"good": "[green]✓[/]", "warning": "[yellow]![/]", "broken": "[red]✗[/]"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON document.")] = False,
) -> None:
    """Check everything the stack needs; exit 1 if something is broken."""
    import json
    from dataclasses import asdict

    from rich.table import Table
    from rich.text import Text

    from cli.console import console
    from configs.home import home_folder
    from infra.stack.checks import Place, examine

    findings = examine(Place(Path.cwd(), home_folder()))
    broken = [finding.name for finding in findings if finding.level == "broken"]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        table = Table.grid(padding=(0, 1))
        for finding in findings:
            told = Text(finding.detail)
            if finding.remedy:
                told.append(f"\n-> {finding.remedy}", style="bold")
            table.add_row(MARKS[finding.level], finding.name, told)
        console.print(table)
        console.print(f"\nBroken: {', '.join(broken)}." if broken else "\nNothing is broken.")
    raise typer.Exit(1 if broken else 0)
