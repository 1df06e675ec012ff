"""The state changes that the supervisor makes, by Prefect's rules: shown, failed, or scheduled again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid5

from infra.kubernetes.decisions import delay_s
from infra.kubernetes.diagnosis.record import Diagnosis
from infra.kubernetes.diagnosis.runs import Pool
from infra.kubernetes.manifests import RUN_LABEL
from infra.kubernetes.objects import discard

if TYPE_CHECKING:
    from lightkube import Client
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

    from configs.cluster import Cluster

AFFINITY = "affinity"
"""Variable of the pool's job template that says which nodes a run prefers."""


class Transitions:
    """Changes states of runs and deletes the Jobs that they leave.

    Attributes:
        retries: how often a run is started again.
    """

    def __init__(self, client: Client, cluster: Cluster) -> None:
        self._client, self._namespace, self.retries = client, cluster.namespace, cluster.retries

    async def starts(self, prefect: PrefectClient, run: FlowRun) -> int:
        """Return how often a run was started again: by this, or by its own pod when it got SIGTERM."""
        states = await prefect.read_flow_run_states(run.id)
        return sum(state.name == "AwaitingRetry" for state in states)

    async def show(self, prefect: PrefectClient, run: FlowRun, found: Diagnosis) -> None:
        """Let a Pending run say in its state what it waits for."""
        from prefect.client.schemas.objects import State, StateType

        name = found.category.value.capitalize()
        if run.state is not None and run.state.name != name:
            state: State[None] = State(type=StateType.PENDING, name=name, message=found.what)
            await self._set(prefect, run, state)

    async def fail(self, prefect: PrefectClient, run: FlowRun, found: Diagnosis, starts: int) -> None:
        """End a run with the reason, and delete its Jobs."""
        from prefect.client.schemas.objects import State, StateType

        often = f" It was started again {starts} times." if found.passing and starts else ""
        message = f"{found.category.value.capitalize()}: {found.what}{often} What to do: {found.remedy}."
        state: State[None] = State(type=StateType.FAILED, name="Failed", message=message)
        # Retries that the flow itself asks for are for its own errors: they would be made in a pod that is gone.
        running = run.state is not None and run.state.is_running()
        if await self._set(prefect, run, state, force=running):
            await asyncio.to_thread(self._delete_jobs, run)

    async def retry(self, prefect: PrefectClient, run: FlowRun, found: Diagnosis, starts: int, pool: Pool) -> None:
        """Schedule a run again, on another node where that one is bad; its former Job is deleted."""
        from prefect.states import AwaitingRetry

        if found.avoid and AFFINITY in pool.variables:
            variables = {**(run.job_variables or {}), AFFINITY: not_on(*found.avoid)}
            await prefect.update_flow_run(run.id, job_variables=variables)
        at = datetime.now(UTC) + timedelta(seconds=delay_s(starts))
        message = f"{found.category.value.capitalize()}: {found.what} Start {starts + 1} of {self.retries} after that."
        if await self._set(prefect, run, AwaitingRetry(scheduled_time=at, message=message)):
            print(f"{run.name}: started again at {at:%H:%M:%S} ({found.category})")
            # A pod on a node that comes back would go on beside the new one.
            await asyncio.to_thread(self._delete_jobs, run)

    async def _set(self, prefect: PrefectClient, run: FlowRun, state: State[None], *, force: bool = False) -> bool:
        """Set a state unless the run has moved on; whether it was accepted.

        The transition's id follows from the state that the decision was made on, so that the server refuses the same
        decision of a second supervisor.
        """
        from prefect.client.schemas.responses import SetStateStatus

        if run.state is None:
            return False
        now = (await prefect.read_flow_run(run.id)).state
        if now is None or now.id != run.state.id:
            return False
        state.state_details.transition_id = uuid5(run.state.id, state.name or state.type.value)
        result = await prefect.set_flow_run_state(run.id, state, force=force)
        if result.status is not SetStateStatus.ACCEPT:
            print(f"{run.name}: the server does not make it {state.name}: {result.details}")
        return result.status is SetStateStatus.ACCEPT

    def _delete_jobs(self, run: FlowRun) -> None:
        import httpx2
        from lightkube.resources.batch_v1 import Job

        try:
            for job in self._client.list(Job, namespace=self._namespace, labels={RUN_LABEL: str(run.id)}):
                name = job.metadata.name if job.metadata else None
                if name:
                    discard(self._client, Job, name, namespace=self._namespace)
        except httpx2.HTTPError as error:  # what is left is found by whoever compares runs and Jobs
            print(f"{run.name}: its Job was not deleted: {error}")


def not_on(*nodes: str) -> dict[str, Any]:
    """Return the affinity of a pod that goes elsewhere than to ``nodes`` if it can."""
    others = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": sorted(nodes)}
    wish = {"weight": 100, "preference": {"matchExpressions": [others]}}
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}
