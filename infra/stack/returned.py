"""Runs that were taken for lost although they went on: the server itself was away for longer than it waits for them.

When it is back, it counts the heartbeats that it has missed and sets such a run to Crashed. A heartbeat after that is a
sign of life: of a process that is gone, or hangs, none comes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING
from uuid import UUID

from infra.stack.automations import HEARTBEAT, SILENT

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun


async def set_running_again(client: PrefectClient, alive: Collection[str]) -> int:
    """Set such runs to Running again; returns how many. ``alive``: ids of flow runs that have a process.

    Their slot of a concurrency limit is not taken again.
    """
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterId,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import State, StateType

    crashed = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CRASHED]))
    ids = FlowRunFilterId(any_=[UUID(run) for run in alive])
    count = 0
    for run in await client.read_flow_runs(flow_run_filter=FlowRunFilter(id=ids, state=crashed)) if alive else ():
        if await _beats(client, run):
            state: State[None] = State(type=StateType.RUNNING, message="It was alive: the server itself had been away.")
            await client.set_flow_run_state(run.id, state, force=True)
            count += 1
    return count


async def _beats(client: PrefectClient, run: FlowRun) -> bool:
    """Whether a run that was set to Crashed for its silence has sent a heartbeat since."""
    from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter

    if run.state is None or run.state.timestamp is None or not (run.state.message or "").startswith(SILENT):
        return False
    sent = EventFilter(
        event=EventNameFilter(name=[HEARTBEAT]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run.id}"]),
        occurred=EventOccurredFilter(since=run.state.timestamp),
    )
    return bool((await client.read_events(sent, limit=1)).events)
