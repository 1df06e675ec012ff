"""Of the scheduled runs that could not start in time, only the newest of each deployment is kept.

Runs are missed while the machine is off, and pile up behind a long run or without a worker. Running them one after the
other would train the same thing again and again: one catch-up is enough. Runs that a person or an automation asked for
are never touched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

# Scheduled, Late and AwaitingConcurrencySlot wait for their first start; AwaitingRetry has started before.
WAITING = ("Scheduled", "Late", "AwaitingConcurrencySlot")
LATE_AFTER = timedelta(seconds=30)
PAGE = 200


async def skip_missed(client: PrefectClient, pool: str, now: datetime) -> int:
    """Cancel all but the newest missed run of each deployment in ``pool``; returns how many were cancelled."""
    from prefect.client.schemas.objects import State, StateType

    skipped = 0
    missed = await _missed(client, pool, now)
    for runs in by_deployment(missed).values():
        newest = max(runs, key=lambda run: (run.expected_start_time or now, str(run.id)))
        for run in runs:
            if run is not newest:
                message = f"Missed its time; of {len(runs)} missed runs only the newest, {newest.name}, is caught up."
                state: State[None] = State(type=StateType.CANCELLED, name="Skipped", message=message)
                await client.set_flow_run_state(run.id, state, force=True)
                skipped += 1
    return skipped


async def _missed(client: PrefectClient, pool: str, now: datetime) -> list[FlowRun]:
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterExpectedStartTime,
        FlowRunFilterState,
        FlowRunFilterStateName,
        WorkPoolFilter,
        WorkPoolFilterName,
    )

    found: list[FlowRun] = []
    while True:
        page = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(name=FlowRunFilterStateName(any_=list(WAITING))),
                expected_start_time=FlowRunFilterExpectedStartTime(before_=now - LATE_AFTER),
            ),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
            limit=PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < PAGE:
            return [run for run in found if run.auto_scheduled and not run.run_count]


def by_deployment(runs: Iterable[FlowRun]) -> dict[UUID, list[FlowRun]]:
    groups: dict[UUID, list[FlowRun]] = defaultdict(list)
    for run in runs:
        if run.deployment_id:
            groups[run.deployment_id].append(run)
    return groups
