"""What Prefect knows of the runs of a pool: read with few requests, told as facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from infra.kubernetes.diagnosis.facts import PoolStatus, Run
from infra.kubernetes.diagnosis.masking import clean_line

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

PAGE = 200
LOG_LINES = 30
RECENT = timedelta(minutes=30)
"""How long after its end a run is still looked at: its objects are kept longer (``ttl_s``)."""


@dataclass(frozen=True)
class Pool:
    """A work pool; ``paused_queues`` by id, ``heard`` the last heartbeat of any worker, ``online`` how many live."""

    name: str
    status: PoolStatus
    limit: int | None = None
    paused_queues: dict[UUID, str] = field(default_factory=dict)
    heard: datetime | None = None
    online: int = 0
    variables: frozenset[str] = frozenset()


async def read_pool(client: PrefectClient, name: str) -> Pool:
    """Read a work pool, its queues and workers; one that does not exist has the status ``missing``."""
    from prefect.exceptions import ObjectNotFound

    try:
        pool = await client.read_work_pool(name)
    except ObjectNotFound:
        return Pool(name, "missing")
    queues = await client.read_work_queues(work_pool_name=name)
    workers = await client.read_workers_for_work_pool(name)
    heard = max((worker.last_heartbeat_time for worker in workers if worker.last_heartbeat_time), default=None)
    return Pool(
        name,
        "paused" if pool.is_paused else "ready",
        pool.concurrency_limit,
        {queue.id: queue.name for queue in queues if queue.is_paused},
        heard,
        sum(worker.status.value == "ONLINE" for worker in workers),
        frozenset(pool.base_job_template.get("variables", {}).get("properties", {})),
    )


async def read_runs(client: PrefectClient, pool: str, now: datetime) -> list[FlowRun]:
    """Read the runs of ``pool`` that are due, at work, or ended badly a short while ago."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterEndTime,
        FlowRunFilterExpectedStartTime,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType

    def of(*types: StateType) -> FlowRunFilterState:
        return FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types)))

    wanted = (
        FlowRunFilter(state=of(StateType.PENDING, StateType.RUNNING)),
        FlowRunFilter(state=of(StateType.SCHEDULED), expected_start_time=FlowRunFilterExpectedStartTime(before_=now)),
        FlowRunFilter(
            state=of(StateType.CRASHED, StateType.FAILED), end_time=FlowRunFilterEndTime(after_=now - RECENT)
        ),
    )
    found: list[FlowRun] = []
    for one in wanted:
        pages: list[FlowRun] = []
        while len(pages) % PAGE == 0:
            page = await client.read_flow_runs(
                flow_run_filter=one,
                work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
                limit=PAGE,
                offset=len(pages),
            )
            pages += page
            if not page:
                break
        found += pages
    return found


async def run_facts(client: PrefectClient, run: FlowRun, pool: Pool, others: Sequence[FlowRun]) -> Run:
    """Return what matters of a run; for one that waits, whom it waits for; for one that ended badly, its log."""
    state = run.state
    kind = state.type.value if state else "SCHEDULED"
    waits: tuple[str, ...] = ()
    limit = ""
    log: tuple[str, ...] = ()
    if kind == "SCHEDULED":
        waits, limit = _slots(run, pool, others, await _deployment(client, run))
    elif kind in ("FAILED", "CRASHED"):
        log = await read_log(client, run.id)
    return Run(
        name=run.name,
        kind=kind,
        state=(state.name if state else None) or kind.title(),
        since=(state.timestamp if state else None) or datetime.now(UTC),
        message=clean_line((state.message if state else "") or ""),
        due=run.next_scheduled_start_time or run.expected_start_time,
        log=log,
        pool=pool.name,
        pool_status=pool.status,
        queue_paused=pool.paused_queues.get(run.work_queue_id, "") if run.work_queue_id else "",
        workers_seen=pool.heard,
        workers_online=pool.online,
        waits_for=waits,
        limit=limit,
    )


async def read_log(client: PrefectClient, run: UUID) -> tuple[str, ...]:
    """Return the last lines of a run's log, without what this module's users wrote themselves."""
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import LogSort

    logs = await client.read_logs(
        LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])), limit=LOG_LINES, sort=LogSort.TIMESTAMP_DESC
    )
    return tuple(
        clean_line(line)
        for entry in reversed(logs)
        if not entry.name.startswith(LOGGER)
        for line in entry.message.splitlines()[-LOG_LINES:]
        if line.strip()
    )[-LOG_LINES:]


LOGGER = "mlops.diagnosis"
"""Name under which diagnoses are in a run's log."""


async def _deployment(client: PrefectClient, run: FlowRun) -> DeploymentResponse | None:
    from prefect.exceptions import ObjectNotFound

    if run.deployment_id is None:
        return None
    try:
        return await client.read_deployment(run.deployment_id)
    except ObjectNotFound:
        return None


def _slots(
    run: FlowRun, pool: Pool, others: Iterable[FlowRun], deployment: DeploymentResponse | None
) -> tuple[tuple[str, ...], str]:
    """Return the names of the runs that hold the slots this one needs, and the limit in words."""
    busy = [other for other in others if other.state and other.state.type.value in ("PENDING", "RUNNING")]
    limit = deployment.global_concurrency_limit if deployment else None
    if deployment is not None and limit is not None:
        same = [other for other in busy if other.deployment_id == run.deployment_id]
        if len(same) >= limit.limit:
            return tuple(other.name for other in same), f"deployment {deployment.name} runs {limit.limit} at a time"
    if pool.limit is not None and len(busy) >= pool.limit:
        return tuple(other.name for other in busy), f"work pool {pool.name} runs {pool.limit} at a time"
    return (), ""
