"""What commands with ``--on kubernetes`` do first."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console


def use_cluster(root: Path, home: Path, console: Console) -> None:
    """Connect to the site's platform, and say so where pods run other code than this checkout's: that of their image.

    Raises:
        UserError: the site names no cluster, or the platform is not there or does not answer.
    """
    from configs.site import SITE_FILE, load_site
    from infra.image.record import read_records
    from infra.kubernetes.platform.connect import connect
    from infra.repository.code import code_version

    connect(load_site(root / SITE_FILE), root, home)
    code, images = code_version(root), read_records(home)
    if code.dirty or (images and images[-1].commit != code.commit):
        of = f" of commit {images[-1].commit[:12]}" if images else ""
        console.print(
            f"[yellow]Pods run the code of their image{of}, not the changes since.[/yellow] "
            "`mlops build-image` and `mlops platform apply` bring them there.",
            soft_wrap=True,
        )
