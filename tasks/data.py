"""The dataset of a run: pulled from the share, or drawn when it is the shipped one and nobody has it yet."""

from __future__ import annotations

from pathlib import Path

from configs.problems import Problem, UserError
from infra.repository import git
from infra.repository.code import is_checkout
from infra.repository.dvc import MissingDataError, tracked_digest
from tasks.job import Job, Place
from tasks.modules import run_module
from tasks.verbs import log, verb


@verb("fetch-data")
def fetch_data(job: Job) -> str:
    """Bring the dataset that ``data.dvc`` names into the workspace and return its digest.

    Raises:
        UserError: it is neither here nor in the share, or the workspace holds changes nobody published.
        ShareError: the share does not answer (tried again).
    """
    digest = tracked_digest(job.root, job.data_file)
    try:
        pull_data(job, job.data_file, job.root / job.recipe.data.path)
    except MissingDataError:
        if not _is_shipped(digest) or (job.root / job.recipe.data.path).exists():
            raise
        _draw(job, digest)
        job.dvc.push(job.data_file)
        log().info("data %s drawn and pushed to the share", digest)
    return digest


def pull_data(place: Place, data_file: str, folder: Path) -> None:
    """Bring what a ``.dvc`` file names to where it belongs, ``folder``.

    Raises:
        MissingDataError: it is neither here nor in the share.
        UserError: the workspace holds changes nobody published.
        ShareError: the share does not answer.
    """
    digest = tracked_digest(place.root, data_file)
    if folder.exists() and place.dvc.is_present(data_file):
        log().info("data %s is here", digest)
    elif fetched := place.dvc.pull(data_file):
        log().info("data %s pulled from the share, %d files", digest, fetched)
    else:
        log().info("data %s is in this machine's cache", digest)


def _is_shipped(digest: str) -> bool:
    from ml.warehouse import SHIPPED_DIGEST

    return digest == SHIPPED_DIGEST


def _draw(job: Job, digest: str) -> None:
    log().info("the share is empty: drawing the shipped dataset")
    run_module(job, "ml.warehouse", str(job.recipe.data.path))
    job.dvc.add(str(job.recipe.data.path))
    drawn = tracked_digest(job.root, job.data_file)
    if drawn != digest:
        if is_checkout(job.root):
            git.git(job.root, "checkout", "--", job.data_file)
        raise UserError(
            Problem(
                job.data_file,
                f"names {digest}, but what was drawn here is {drawn}",
                "use the locked environment (make setup), or pull the dataset from a share that has it",
            )
        )
