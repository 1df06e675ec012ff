"""Lets a training that its node was taken from go on elsewhere: its checkpoints are in the share, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.problems import UserError
from infra.repository.checkpoint_copies import CheckpointCopies
from infra.repository.checkpoint_store import open_store
from infra.repository.code import is_checkout
from tasks.job import Job
from tasks.modules import run_module
from tasks.verbs import log


@contextmanager
def shared_checkpoints(job: Job) -> Iterator[CheckpointCopies | None]:
    """Fetch the training's checkpoint if the share has a further one, and keep the share's up to date in the block.

    A checkout's own disk keeps them; only a container's, which goes with the pod, needs this. None elsewhere.
    """
    store = None if is_checkout(job.root) or job.share is None else open_store(job.share)
    if store is None:
        yield None
        return
    with CheckpointCopies(store, job.home / "training", log().warning) as copies:
        _fetch(job, copies)
        yield copies


def _fetch(job: Job, copies: CheckpointCopies) -> None:
    kept = copies.kept()
    if not kept:
        return
    try:
        folder = Path(run_module(job, "ml.training_folder", "--recipe", job.recipe_path)[-1])
    except UserError as error:  # the training itself will say so, if it is one that matters
        log().debug("no checkpoint is looked for: %s", error)
        return
    if folder.name in kept and (epochs := copies.fetch(folder.name)) is not None:
        log().info("train: brought here the checkpoint of %d epochs that an earlier run left in the share", epochs)
