"""``mlops site dashboard`` and ``mlops site smoke``: the cluster that the site has made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SMOKE = "configs/ddp-linear.yaml"


def dashboard(
    admin: Annotated[
        bool,
        typer.Option("--admin", help="A token that may do everything, for ten minutes, instead of one that reads."),
    ] = False,
) -> None:
    """Open the way to the cluster's dashboard, with a token of an hour that reads all but secrets; Ctrl-C closes it."""
    import contextlib

    from cli.console import console
    from configs.home import home_folder
    from configs.problems import Problem, UserError
    from configs.site import SITE_FILE, load_site
    from infra.site.access import ensure_kubeconfig
    from infra.site.dashboard import dashboard_client, dashboard_token, lead_to_dashboard
    from infra.site.inventory import site_folder

    if not console.is_terminal:
        what = "shows a token, and its output is no terminal"
        raise UserError(Problem("mlops site dashboard", what, "run it in a terminal, without a pipe or a file"))
    described, home = load_site(SITE_FILE), home_folder()
    ensure_kubeconfig(described, home)
    token = dashboard_token(dashboard_client(described.cluster), admin=admin)

    def tell(address: str) -> None:
        ca = site_folder(home) / "authority" / "ca.crt"
        console.print(f"{address}  (its certificate is of the site's CA: {ca})", soft_wrap=True)
        may = "may do EVERYTHING" if admin else "reads all but secrets"
        console.print(f"The token {may}, until {token.ends.astimezone():%H:%M}:\n")
        console.print(token.text, soft_wrap=True, markup=False, emoji=False)
        console.print("\nCtrl-C closes the way.")

    with contextlib.suppress(KeyboardInterrupt):
        lead_to_dashboard(described.cluster, tell)


def smoke() -> None:
    """Train something small on the cluster, over two workers, and show what came of it."""
    from cli.console import console
    from cli.options import Where
    from cli.running import run_flow
    from configs.home import home_folder
    from infra.repository.code import find_root

    root = find_root(Path.cwd())
    home = home_folder(root)
    raise typer.Exit(run_flow("train-ddp", {"config": SMOKE}, Where.KUBERNETES, root, home, console, in_graph=False))
