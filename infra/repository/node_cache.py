"""DVC in a container: it does without git, and keeps its files on the node's disk for the runs that come after.

The cache is shared by all runs of a node. That is safe without a lock of ours: DVC puts an object there under another
name first and renames it, its name is its content's hash, and whoever comes second finds it. What DVC does lock, its
state and ``.dvc/tmp``, each pod has for itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from configobj import ConfigObj

from configs.problems import Problem, UserError
from infra.repository.code import is_checkout

ENVIRONMENT = "MLOPS_CACHE"
LINKS = "symlink,copy"
"""How files come from the cache into the workspace. They lie on two mounts, so that neither clones nor hard links can
be made; a copy of the dataset would be written into the container's layer by every run."""


def set_up(root: Path) -> None:
    """Write ``.dvc/config.local`` of an image's code; a git checkout is left alone.

    The environment variable ``MLOPS_CACHE`` names the folder of the node; without it the cache goes with the pod.

    Raises:
        UserError: that folder, or the code's own, cannot be written.
    """
    if is_checkout(root):
        return
    cache = os.environ.get(ENVIRONMENT)
    if cache and not os.access(cache, os.W_OK | os.X_OK):
        remedy = f"let user {os.getuid()} write there, as the init container of the pool `kubernetes` does"
        raise UserError(Problem(f"{ENVIRONMENT}={cache}", "is no folder that this run can write to", remedy))
    path = root / ".dvc" / "config.local"
    config = ConfigObj(str(path), encoding="utf-8")
    config.setdefault("core", {})["no_scm"] = "true"
    if cache:
        config.setdefault("cache", {}).update({"dir": cache, "type": LINKS})
    try:
        config.write()
        path.chmod(0o600)
    except OSError as error:
        remedy = "the image's code belongs to the user that runs it"
        raise UserError(Problem(str(path), f"cannot be written: {error.strerror}", remedy)) from None
