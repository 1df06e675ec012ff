"""What the worker looks after every few seconds besides taking runs: missed schedules, lost runs, left Jobs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, BatchV1Api
from kubernetes_asyncio.client.exceptions import ApiException
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType

from infra.kubernetes.job_worker import PatientWorker, observes, start_observing
from infra.kubernetes.lost import Job, Lost, Mismatch, Remedy
from infra.kubernetes.manifests import RUN_LABEL
from infra.stack.missed import skip_missed

EVERY_S = 10.0
PAGE = 200
OPEN = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
ENDED = [StateType.CRASHED, StateType.CANCELLED]


async def keep_house(worker: PatientWorker, pool: str, namespace: str) -> None:
    """Look every :data:`EVERY_S` seconds, for ever; a look that fails is said once and the next one comes."""
    lost = Lost(namespace)
    said = ""
    while True:
        try:
            async with get_client() as client:
                if count := await skip_missed(client, pool, datetime.now(UTC)):
                    print(f"skipped {count} missed scheduled runs")
                await _look(client, worker, pool, lost)
            said = ""
        except Exception as error:  # the cluster or the server is away: the worker itself says so, and waits
            kind = type(error).__name__
            if kind != said:
                print(f"runs and Jobs could not be compared: {kind}: {error}")
            said = kind
        await asyncio.sleep(EVERY_S)


async def _look(client: PrefectClient, worker: PatientWorker, pool: str, lost: Lost) -> None:
    own = worker.submitting  # before the others are read: whoever leaves it afterwards has its Job by then
    runs = await _runs(client, WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])), OPEN)
    api = await api_client()
    try:
        jobs = await _jobs(api, lost.namespace)
        if not observes():  # and the API answers again
            print("the observer of pods and Jobs has ended: started again")
            start_observing()
        open_ids = {run.id for run in runs}
        left = [key for key, found in jobs.items() if key not in open_ids and any(not job.ended for job in found)]
        for start in range(0, len(left), PAGE):
            runs += await _runs(client, None, ENDED, left[start : start + PAGE])
        for mismatch in lost.find(runs, jobs, own | worker.submitting, datetime.now(UTC)):
            await _mend(client, api, worker, mismatch)
    finally:
        await api.close()


async def _mend(client: PrefectClient, api: ApiClient, worker: PatientWorker, found: Mismatch) -> None:
    run, job = found.run, found.job
    print(f"{run.name}: {found.remedy.name.lower().replace('_', ' ')} {job.name if job else ''} {found.why}".rstrip())
    if found.remedy is Remedy.TAKE_OVER:
        worker.take_over(run)
    elif found.remedy is Remedy.REMEMBER and job is not None:
        await client.update_flow_run(run.id, infrastructure_pid=f"{job.namespace}:{job.name}")
    if found.remedy in (Remedy.DELETE_JOB, Remedy.CANCEL) and job is not None:
        with contextlib.suppress(ApiException):  # gone by itself in the meantime; if not, the next look finds it
            await BatchV1Api(api).delete_namespaced_job(job.name, job.namespace, propagation_policy="Background")
    if found.remedy in (Remedy.CRASH, Remedy.CANCEL):
        kind = StateType.CRASHED if found.remedy is Remedy.CRASH else StateType.CANCELLED
        state: State[None] = State(type=kind, name=kind.value.title(), message=found.why)
        await client.set_flow_run_state(run.id, state, force=True)


async def _runs(
    client: PrefectClient, pool: WorkPoolFilter | None, types: list[StateType], ids: list[UUID] | None = None
) -> list[FlowRun]:
    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types)),
        id=FlowRunFilterId(any_=ids) if ids is not None else None,
    )
    found: list[FlowRun] = []
    while True:
        page = await client.read_flow_runs(flow_run_filter=wanted, work_pool_filter=pool, limit=PAGE, offset=len(found))
        found += page
        if len(page) < PAGE:
            return found


async def _jobs(api: ApiClient, namespace: str) -> dict[UUID, list[Job]]:
    answer: Any = await BatchV1Api(api).list_namespaced_job(
        namespace, label_selector=RUN_LABEL, _preload_content=False, _request_timeout=20
    )
    manifests: dict[str, Any] = json.loads(await answer.read())
    jobs: dict[UUID, list[Job]] = defaultdict(list)
    for manifest in manifests["items"]:
        with contextlib.suppress(ValueError):  # a label that somebody else wrote
            jobs[UUID(manifest["metadata"]["labels"][RUN_LABEL])].append(Job.read(manifest))
    return jobs


async def api_client() -> ApiClient:
    """As Prefect's worker finds it: the pod's service account, else the user's kubeconfig."""
    try:
        config.load_incluster_config()  # type: ignore[no-untyped-call]
        return ApiClient()
    except config.ConfigException:
        return await config.new_client_from_config()
