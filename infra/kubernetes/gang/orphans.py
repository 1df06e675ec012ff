"""Takes away the gangs of runs that are over: whoever launched them may have been killed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from infra.kubernetes.gang.pod import FLOW_RUN
from infra.kubernetes.objects import discard

if TYPE_CHECKING:
    from lightkube import Client
    from prefect.client.orchestration import PrefectClient

SETTLE = timedelta(seconds=60)
"""How long a run must have been Crashed: it may be about to be started again, and then adopts its gang."""


async def runs_over(client: PrefectClient, runs: set[str], now: datetime) -> set[str]:
    """Return those of ``runs`` (ids) that are over for good, or unknown to the server."""
    from prefect.exceptions import ObjectNotFound

    over = set()
    for run in runs:
        try:
            state = (await client.read_flow_run(UUID(run))).state
        except ObjectNotFound:
            over.add(run)
            continue
        except ValueError:  # a label that somebody else wrote
            continue
        if state is not None and state.is_final() and (not state.is_crashed() or now - state.timestamp > SETTLE):
            over.add(run)
    return over


def launched(client: Client, namespace: str) -> dict[str, list[Any]]:
    """Return the Jobs and Services of gangs by the id of their run."""
    from lightkube import operators
    from lightkube.resources.batch_v1 import Job
    from lightkube.resources.core_v1 import Service

    found: dict[str, list[Any]] = {}
    labels: dict[str, Any] = {FLOW_RUN: operators.exists()}
    kinds: tuple[Any, ...] = (Job, Service)
    for kind in kinds:
        for item in client.list(kind, namespace=namespace, labels=labels):
            if item.metadata.deletionTimestamp is None:
                found.setdefault(item.metadata.labels[FLOW_RUN], []).append(item)
    return found


def remove(client: Client, items: list[Any]) -> None:
    """Delete gang objects with what belongs to them; what is gone already is no error."""
    for item in items:
        discard(client, type(item), item.metadata.name, namespace=item.metadata.namespace)
