"""Giving others what a run made: outputs and the run cache go to the share."""

from __future__ import annotations

from tasks.job import Job
from tasks.verbs import log, verb


@verb("push-results")
def push_results(job: Job) -> None:
    """Push data, models, reports and the run cache: what was trained here need not be trained again elsewhere.

    Raises:
        ShareError: the share does not answer (tried again).
    """
    job.dvc.push(run_cache=True)
    log().info("results and run cache are in the share")
