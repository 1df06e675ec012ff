"""Brings a worker's dataset from the share into the code's folder, through the node's cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from configs.home import home_folder

if TYPE_CHECKING:
    from infra.repository.dvc import Dvc

DELAYS_S = (2, 4, 8, 16, 32)
"""Seconds between two tries while the share is away."""


def fetch(root: Path, file: str, note: Callable[[str], None]) -> None:
    """Pull what the ``.dvc`` file names, unless it is here.

    Raises:
        UserError: it cannot be had.
        ShareError: the share was away for about a minute.
    """
    from infra.repository import node_cache
    from infra.repository.dvc import Dvc
    from infra.repository.share import open_share

    started = time.monotonic()
    node_cache.set_up(root)
    with Dvc(root) as dvc:
        dvc.connect(open_share(root, home_folder(root)))
        _pull(dvc, file, note)
    note(f"{file} is here after {time.monotonic() - started:.1f} s")


def _pull(dvc: Dvc, file: str, note: Callable[[str], None]) -> None:
    from infra.repository.dvc import ShareError

    for delay_s in (*DELAYS_S, None):
        try:
            if not dvc.is_present(file):
                dvc.pull(file)
            return
        except ShareError as error:
            if delay_s is None:
                raise
            note(f"the share does not answer, next try in {delay_s} s: {error.problems[0].what}")
            time.sleep(delay_s)
