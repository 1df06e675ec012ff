"""Where a checkout keeps its state: servers, checkpoints, the default share, secrets."""

from __future__ import annotations

import os
from pathlib import Path


def home_folder(checkout: Path = Path()) -> Path:
    """The state folder: ``MLOPS_HOME``, or ``.mlops`` below ``checkout``. Absolute; need not exist."""
    return Path(os.environ.get("MLOPS_HOME") or checkout / ".mlops").absolute()
