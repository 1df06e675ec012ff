"""Options that several subcommands share: cheap to import."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

SITE = "site"
ShareOption = Annotated[
    str | None,
    typer.Option(
        "--share",
        metavar="WHERE",
        help="Where data and results are shared, kept for this checkout: smb://user@host/share/folder, or a folder; "
        f"`{SITE}` is that of configs/site.yaml again.",
    ),
]


class Where(StrEnum):
    """What runs a flow: this machine's stack, or the platform on the site's cluster."""

    LOCAL = "local"
    KUBERNETES = "kubernetes"


OnOption = Annotated[Where, typer.Option("--on", help="Here, or in pods of the site's cluster.")]
