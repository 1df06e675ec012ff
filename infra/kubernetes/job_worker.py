"""Prefect's Kubernetes worker, which outlives what it works with: the cluster's API, the Prefect server, itself.

- A Job is named after the flow run and the moment it was scheduled, so that a request whose answer was lost, or a
  second worker, finds the Job instead of making another one.
- While the API does not answer, or a quota is used up, a run stays Pending and says so in its log.
- While the Prefect server does not answer, nothing is given up.

Imported by the worker's process alone: it takes seconds and loads Prefect and the Kubernetes client.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Self, TypeVar
from uuid import UUID

import anyio.abc
import httpx
from kubernetes_asyncio.client import ApiClient, BatchV1Api, V1Job
from kubernetes_asyncio.client.exceptions import ApiException
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import InfrastructureError, InfrastructureNotFound
from prefect_kubernetes import observer
from prefect_kubernetes.worker import (
    KubernetesWorker,
    KubernetesWorkerJobConfiguration,
    KubernetesWorkerResult,
)

from infra.kubernetes.lost import Job
from infra.kubernetes.manifests import RUN_LABEL
from infra.kubernetes.patience import Answer, Patience, judge
from infra.stack.outliving import OutlivesServer, passes

Result = TypeVar("Result")
REQUEST_LIMIT_S = 30.0
SERVER_PAUSE_S = 2.0
OBSERVER_STOP_S = 5.0
NAME_LIMIT = 52
"""Characters of a Job's name: with what its pods' names add, a host name of 63 remains possible."""


class WithdrawnError(Exception):
    """The run was cancelled, or went on elsewhere, while its Job could not be made; ``str()`` is its state."""


class PatientConfiguration(KubernetesWorkerJobConfiguration):  # type: ignore[misc] # has no types
    """The Job of one run; made even when the Prefect server has to be waited for."""

    @classmethod
    async def resolve_for_flow_run(cls, flow_run: FlowRun, **options: Any) -> PatientConfiguration:
        resolve = super().resolve_for_flow_run
        return await until_answered(lambda: resolve(flow_run, **options))


class PatientWorker(OutlivesServer, KubernetesWorker):  # type: ignore[misc] # has no types
    """See the module.

    Args:
        limit_s: seconds that a run waits for the cluster's API before it is Crashed.
    """

    job_configuration = PatientConfiguration

    def __init__(self, *arguments: Any, limit_s: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.limit_s = limit_s
        self.stopping = False
        self.polled: Callable[[], None] = lambda: None

    @property
    def submitting(self) -> frozenset[UUID]:
        """The runs that this worker is making Jobs for."""
        return frozenset(self._submitting_flow_run_ids)

    def take_over(self, flow_run: FlowRun) -> None:
        """Make the Job of a Pending run that a former worker had taken; a Job that exists is adopted."""
        if self._runs_task_group is not None and flow_run.id not in self._submitting_flow_run_ids:
            self._submitting_flow_run_ids.add(flow_run.id)
            self._runs_task_group.start_soon(self._submit_run, flow_run)

    async def __aenter__(self) -> Self:
        # Prefect's Kubernetes worker starts and stops its observer in the event loop, which stands still meanwhile:
        # for as long as the cluster's API is away, and deaf to SIGTERM.
        start_observing()
        await super(KubernetesWorker, self).__aenter__()
        return self

    async def __aexit__(self, *problem: object) -> None:
        await super(KubernetesWorker, self).__aexit__(*problem)
        stop = threading.Thread(target=observer.stop_observer, daemon=True)
        stop.start()
        await asyncio.to_thread(stop.join, OBSERVER_STOP_S)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        if self.stopping:
            return []
        taken = await super().get_and_submit_flow_runs()
        self.polled()
        return taken

    async def _propose_pending_state(self, flow_run: FlowRun) -> bool:
        # A run that is taken over is Pending already, and the server would not have it so twice.
        pending = flow_run.state is not None and flow_run.state.is_pending()
        return pending or await super()._propose_pending_state(flow_run)

    async def _give_worker_labels_to_flow_run(self, flow_run_id: UUID) -> None:
        give = super()._give_worker_labels_to_flow_run
        await until_answered(lambda: give(flow_run_id))

    async def run(
        self,
        flow_run: FlowRun,
        configuration: KubernetesWorkerJobConfiguration,
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> KubernetesWorkerResult:
        name_job(configuration.job_manifest, await until_answered(lambda: self._scheduled(flow_run)))
        try:
            return await super().run(flow_run, configuration, task_status)  # type: ignore[safe-super] # has no types
        except WithdrawnError as state:
            self.get_flow_run_logger(flow_run).info("Not submitted: the run is %s by now", state)
            if str(state) == "Cancelling":
                message = {"message": "Cancelled while it waited for the cluster."}
                await until_answered(lambda: self._mark_flow_run_as_cancelled(flow_run, message))
            if task_status is not None:
                task_status.started("")  # nothing runs, so there is nothing to remember for a cancellation
            return KubernetesWorkerResult(identifier="", status_code=0)

    async def _scheduled(self, flow_run: FlowRun) -> str:
        """What tells this start of the run from every other one: its last Scheduled state."""
        states = await self.client.read_flow_run_states(flow_run.id)
        scheduled = [state for state in states if state.type == StateType.SCHEDULED]
        latest = max(scheduled, key=lambda state: state.timestamp or datetime.min.replace(tzinfo=UTC), default=None)
        return f"{flow_run.id} {latest.id if latest else ''}"

    async def _create_job(self, configuration: KubernetesWorkerJobConfiguration, client: ApiClient) -> V1Job:
        labels = configuration.job_manifest["metadata"]["labels"]
        flow_run = UUID(labels[RUN_LABEL])
        logger = self.get_flow_run_logger(await until_answered(lambda: self.client.read_flow_run(flow_run)))
        patience = Patience(self.limit_s, logger.warning)
        while True:
            try:
                async with asyncio.timeout(REQUEST_LIMIT_S):
                    job: V1Job = await super()._create_job(configuration, client)
                patience.over()
                return job
            except Exception as error:
                kind, said = judge(error)
                if kind is Answer.WRONG:
                    raise
            existing = await self._existing(configuration, client) if kind is Answer.EXISTS else None
            if existing is None:
                await patience.pause(kind, said)
                current = await until_answered(lambda: self.client.read_flow_run(flow_run))
                if current.state is None or current.state.is_pending():
                    continue
                # The request whose answer was lost may have made the Job, and its pod may have begun the run since.
                existing = await self._existing(configuration, client)
                if existing is None:
                    raise WithdrawnError(current.state.name)
            patience.over()
            await self._check_alive(existing, flow_run, client)
            logger.info("Job %s exists already, of an earlier request: adopted", existing.metadata.name)
            return existing

    async def _existing(self, configuration: KubernetesWorkerJobConfiguration, client: ApiClient) -> V1Job | None:
        """The run's own Job of the manifest's name; None when the API does not answer, or it is gone again.

        Raises:
            ApiException: the Job of that name is somebody else's, or cannot be read.
        """
        metadata = configuration.job_manifest["metadata"]
        try:
            async with asyncio.timeout(REQUEST_LIMIT_S):
                job = await BatchV1Api(client).read_namespaced_job(metadata["name"], configuration.namespace)
        except Exception as error:
            if isinstance(error, ApiException) and error.status == 404:
                return None
            if judge(error)[0] in (Answer.WRONG, Answer.REFUSED):
                raise
            return None
        if (job.metadata.labels or {}).get(RUN_LABEL) != metadata["labels"][RUN_LABEL]:
            raise ApiException(status=409, reason=f"Job {metadata['name']} exists and is not this flow run's")
        return job

    async def _check_alive(self, job: V1Job, flow_run: UUID, client: ApiClient) -> None:
        """Raise when the Job that was to be adopted has ended and its run knows nothing of it."""
        ended = Job.read(client.sanitize_for_serialization(job)).ended
        current = await until_answered(lambda: self.client.read_flow_run(flow_run))
        if ended and current.state is not None and current.state.is_pending():
            raise InfrastructureError(f"its Job {job.metadata.name} has ended without a word from the run: {ended}")

    async def kill_infrastructure(
        self, infrastructure_pid: str, configuration: KubernetesWorkerJobConfiguration, grace_seconds: int = 30
    ) -> None:
        patience = Patience(self.limit_s, self._logger.warning)
        while True:
            try:
                async with asyncio.timeout(REQUEST_LIMIT_S):
                    await super().kill_infrastructure(infrastructure_pid, configuration, grace_seconds)
                    return
            except InfrastructureNotFound:
                raise
            except Exception as error:
                kind, said = judge(error)
                if kind is not Answer.AWAY:
                    raise
                await patience.pause(kind, said)


def start_observing() -> None:
    """Start the observer of pods and Jobs, also in the place of one that has ended; returns at once."""

    def start() -> None:
        observer.stop_observer()
        observer.start_observer()

    threading.Thread(target=start, daemon=True).start()


def observes() -> bool:
    """Whether the observer lives: it gives up on an API that is away for a minute."""
    thread = observer._observer_thread
    return thread is not None and thread.is_alive()


def name_job(manifest: dict[str, Any], scheduled: str) -> None:
    """Replace the generated name of a Job by one that follows from the run: a prefix to read, a digest to tell."""
    metadata = manifest["metadata"]
    digest = hashlib.sha256(scheduled.encode()).hexdigest()[:10]
    prefix = str(metadata.pop("generateName", "") or metadata.get("name", "")).strip("-") or "run"
    metadata["name"] = f"{prefix[: NAME_LIMIT - len(digest) - 1].rstrip('-.')}-{digest}"


async def until_answered(call: Callable[[], Awaitable[Result]]) -> Result:
    """Ask the Prefect server again until it answers; what it refuses is raised."""
    while True:
        try:
            return await call()
        except httpx.HTTPError as error:
            if not passes(error):
                raise
        await asyncio.sleep(SERVER_PAUSE_S)
