"""How this project writes Prefect tasks: what is tried again, and how errors look in the logs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging.loggers import get_logger
from prefect.tasks import exponential_backoff
from prefect.tasks import task as prefect_task

from configs.problems import UserError
from infra.repository.dvc import ShareError

P = ParamSpec("P")
R = TypeVar("R")

RETRIES = 4
"""Tries after the first, at 2, 4, 8 and 16 s: a share or network that is away for half a minute fails no run."""


def verb(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function the Prefect task ``name``.

    What can pass (the share or the network away) is tried again with backoff; what cannot (bad data, a bad recipe, a
    stage that failed) ends the run at once. DVC decides what is up to date, so Prefect caches nothing.
    """

    return prefect_task(
        name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=RETRIES,
        retry_delay_seconds=exponential_backoff(backoff_factor=2),
        retry_jitter_factor=0.2,
        retry_condition_fn=_can_pass,
    )


def log() -> logging.Logger | logging.LoggerAdapter[Any]:
    """Return the run's logger: its lines reach the Prefect UI and ``prefect deployment run --watch``."""
    return get_run_logger()


def say_errors_once() -> None:
    """Show a :class:`UserError` in the logs once and without its traceback: it says all by itself."""
    for name in ("task_runs", "flow_runs"):
        logger = get_logger(f"prefect.{name}")
        if _once not in logger.filters:
            logger.addFilter(_once)


def _once(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, UserError):
        record.exc_info = None
        told: set[int] = _once.__dict__.setdefault("told", set())
        if id(error) in told and "Retry" not in record.getMessage():
            return False
        told.add(id(error))
        record.msg, record.args = str(error), ()
    elif record.getMessage().startswith("Finished in state Failed("):
        record.msg, record.args = "Failed", ()  # the state's message is the error again
    return True


def _can_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, (ShareError, ConnectionError, TimeoutError))
