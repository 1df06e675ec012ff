"""``mlops build-image``: the image that pods run, from exactly one commit, in the site's registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def build_image(
    dirty: Annotated[
        bool, typer.Option("--dirty", help="Take uncommitted changes of tracked files along, as a diff in the image.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Build although nothing changed: for a newer base image.")
    ] = False,
) -> None:
    """Build and push the image of this commit, unless the registry has it; deployments use it from then on."""
    import time

    from cli.console import console
    from configs.home import home_folder
    from infra.image.making import open_making
    from infra.repository.git import find_root
    from tasks.durations import duration

    def say(line: str) -> None:
        console.print(line, style="dim", markup=False, emoji=False, soft_wrap=True)

    root = find_root(Path.cwd())
    began = time.monotonic()
    with open_making(root, home_folder(root), dirty=dirty) as making:
        found = making.find()
        if force or not found:
            with console.status("building"):
                making.build(say)
            with console.status("pushing"):
                making.push(say)
        record = making.record()
    made = (
        "Nothing changed, nothing was built."
        if found and not force
        else f"Built and pushed in {duration(time.monotonic() - began)}."
    )
    console.print(
        f"{made} Deployments use\n  {record.reference}\n  tag {record.tag}", soft_wrap=True, markup=False, emoji=False
    )
