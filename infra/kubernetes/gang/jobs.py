"""Gangs as a cluster knows them, by their Jobs: read and removed, also by others than launched them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from configs.problems import Problem, UserError
from infra.kubernetes.client import is_away
from infra.kubernetes.gang.pod import GANG, GRACE_S
from infra.kubernetes.objects import discard, find

if TYPE_CHECKING:
    from lightkube import Client

AWAY_S = 3600.0
"""Seconds without an answer of the API server after which we give up; a gang goes on without us until then."""
STUCK_S = GRACE_S + 15.0
"""Seconds after which a pod that is being deleted must be gone; otherwise its node does not answer."""
Answer = TypeVar("Answer")
GONE_S = STUCK_S + GRACE_S
"""Seconds in which a removed gang must be gone."""


def remove_gang(client: Client, name: str) -> None:
    """Delete a gang's Job with all that it owns, and wait until its pods are gone; not there: nothing.

    Raises:
        UserError: pods are still there after :data:`GONE_S`.
    """
    from lightkube.resources.batch_v1 import Job
    from lightkube.resources.core_v1 import Pod, Service

    for resource in (Job, Service):
        patiently(partial(discard, client, resource, name))
    started = time.monotonic()
    while pods := patiently(partial(_left, client, name)):
        waited = time.monotonic() - started
        if waited > GONE_S:
            what = f"is deleted, but not gone after {GONE_S:.0f} s: {', '.join(pods)}"
            raise UserError(Problem(name, what, "look at their nodes"))
        if waited > STUCK_S:  # their nodes do not answer
            for pod in pods:
                patiently(partial(discard, client, Pod, pod, grace_period=0))
        time.sleep(0.5)


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Ask the API server until it answers, for at most :data:`AWAY_S`; what it answers is not asked twice.

    Raises:
        httpx2.HTTPError: it was away for longer, or refuses.
    """
    give_up = time.monotonic() + AWAY_S
    while True:
        try:
            return ask()
        except Exception as error:
            if not is_away(error) or time.monotonic() > give_up:
                raise
            time.sleep(2)


def _left(client: Client, name: str) -> list[str]:
    """Return what is left of a gang: its pods, or while there are none, its Job."""
    from lightkube.resources.core_v1 import Pod

    pods = [str(pod.metadata and pod.metadata.name) for pod in client.list(Pod, labels={GANG: name})]
    return pods or ([name] if read_job(client, name) is not None else [])


def read_job(client: Client, name: str) -> Mapping[str, Any] | None:
    """Return a gang's Job, None where there is none."""
    from lightkube.resources.batch_v1 import Job

    found = find(client, Job, name)
    return None if found is None else found.to_dict()
