"""Runs that a former worker had taken and whose process is gone before it began to send heartbeats.

The crash automation knows a run from its first heartbeat on; before that, only whoever starts the processes can tell.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient


async def crash_vanished(client: PrefectClient, pool: str, alive: Collection[str]) -> int:
    """Set the Pending runs of ``pool`` to Crashed that no process works for; returns how many.

    For a worker that has not taken a run yet: whatever is Pending then is not its own. ``alive`` holds the ids of flow
    runs with a process.
    """
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import State, StateType

    pending = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING]))),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )
    lost = [run for run in pending if str(run.id) not in alive]
    for run in lost:
        message = "The worker that had taken it is gone, and so is its process. Retry the run."
        state: State[None] = State(type=StateType.CRASHED, name="Crashed", message=message)
        await client.set_flow_run_state(run.id, state, force=True)
    return len(lost)
