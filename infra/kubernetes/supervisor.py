"""Beside the worker of the platform: tells why runs fail or do not begin, and retries what can pass.

Entry: :func:`supervise`, a side task of the worker's process. A run that waits for the cluster stays Pending and says
why; one that cannot begin is failed with the reason; one that lost its node or place is started again. Gangs whose run
is over are taken away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from infra.kubernetes.decisions import Action, decide, decide_on_past
from infra.kubernetes.diagnosis.causes import diagnose
from infra.kubernetes.diagnosis.evidence import facts_of, jobs_of
from infra.kubernetes.diagnosis.facts import Facts, Run
from infra.kubernetes.diagnosis.masking import clean_line
from infra.kubernetes.diagnosis.publish import publish, published
from infra.kubernetes.diagnosis.record import Category, Diagnosis
from infra.kubernetes.diagnosis.runs import Pool, read_pool, read_runs, run_facts
from infra.kubernetes.diagnosis.snapshot import Snapshot, read_objects, read_surroundings
from infra.kubernetes.gang import orphans
from infra.kubernetes.leader import Leader
from infra.kubernetes.transitions import Transitions

if TYPE_CHECKING:
    from lightkube import Client
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

    from configs.cluster import Cluster

EVERY_S = 5.0
"""Seconds between two looks."""
GANGS_EVERY = 6
"""Looks between two searches for gangs that were left."""
SETTLE = timedelta(seconds=8)
"""How long a trouble must last to be told: a pod may be unschedulable for the moment in which another one ends."""
NODES_RETURN = timedelta(seconds=60)
"""How long nodes may take to report after the API was away, or a supervisor began, which does not know whether it was:
until then those that could not report look like lost ones."""
UNKNOWN = timedelta(seconds=45)
"""How long the cluster has to tell why a run ended, until that is told to be unknown."""


async def supervise(cluster: Cluster, client: Client, pool: str, stop: asyncio.Event) -> None:
    """Look at the runs of ``pool`` every few seconds until ``stop`` is set.

    Opens its own Prefect client from the environment (``PREFECT_API_URL``). ``client`` is synchronous and used from
    a thread. Never raises for a server or an API that is away: it says so once and goes on.
    """
    from prefect.client.orchestration import get_client

    supervisor = Supervisor(cluster, client, pool)
    said = ""
    while not stop.is_set():
        try:
            async with get_client() as prefect:
                await supervisor.look(prefect, datetime.now(UTC))
            said = ""
        except Exception as error:  # the Prefect server is away, or an answer nobody thought of: the next look comes
            if type(error).__name__ != said:
                print(f"runs could not be looked at: {type(error).__name__}: {clean_line(str(error))}")
            said = type(error).__name__
        try:
            await asyncio.wait_for(stop.wait(), EVERY_S)
        except TimeoutError:
            continue
    await asyncio.to_thread(supervisor.leader.give_up)


TAKEN = (Category.EVICTED, Category.PREEMPTED, Category.NODE_SHUTDOWN, Category.POD_DELETED)
"""What is told at once: it does not pass, and its traces do."""


@dataclass(frozen=True)
class View:
    """One start of a run to look at; ``past``: the run went on after it."""

    run: Run
    job: str
    past: bool


class Supervisor:
    """See the module; one object remembers what was told and since when troubles last."""

    def __init__(self, cluster: Cluster, client: Client, pool: str) -> None:
        self._client, self._pool, self._namespace = client, pool, cluster.namespace
        self._transitions = Transitions(client, cluster)
        self.leader = Leader(client, cluster.namespace)
        self._marks: dict[UUID, set[str]] = {}
        self._since: dict[tuple[UUID, str], datetime] = {}
        self._done: set[tuple[UUID, UUID]] = set()
        self._looks = 0
        self._nodes_return: datetime | None = None

    async def look(self, prefect: PrefectClient, now: datetime) -> None:
        """Look once at all runs of the pool, tell what is new, and act.

        Raises:
            httpx.HTTPError: the Prefect server is away.
        """
        runs = await read_runs(prefect, self._pool, now)
        leads = await asyncio.to_thread(self.leader.leads)
        if not leads:
            self._since.clear()
            return
        seen, api_error = await self._objects(runs)
        if api_error or self._nodes_return is None:
            self._nodes_return = now + NODES_RETURN
        if runs:
            pool = await read_pool(prefect, self._pool)
            current: set[tuple[UUID, str]] = set()
            for run in runs:
                if run.state is not None and (run.id, run.state.id) not in self._done:
                    current |= await self._see(prefect, run, pool, runs, seen, api_error, now)
            self._since = {key: since for key, since in self._since.items() if key in current}
        self._looks += 1
        if not api_error and self._looks % GANGS_EVERY == 1:
            await self._sweep(prefect, now)

    async def _objects(self, runs: list[FlowRun]) -> tuple[Snapshot, str]:
        """Read the cluster; the error's text when its API is away."""
        import httpx2

        if not runs:
            return Snapshot(), ""
        at_work = {str(run.id) for run in runs if run.state is not None and run.state.is_running()}
        try:
            seen = await asyncio.to_thread(read_objects, self._client, self._namespace)
            return await asyncio.to_thread(read_surroundings, self._client, self._namespace, seen, at_work), ""
        except httpx2.HTTPError as error:
            return Snapshot(), clean_line(f"{type(error).__name__}: {error}")

    async def _see(
        self,
        prefect: PrefectClient,
        run: FlowRun,
        pool: Pool,
        runs: list[FlowRun],
        seen: Snapshot,
        api_error: str,
        now: datetime,
    ) -> set[tuple[UUID, str]]:
        """Look at one run; return the keys of its present troubles."""
        keys: set[tuple[UUID, str]] = set()
        facts = await run_facts(prefect, run, pool, runs)
        for view in _views(facts, jobs_of(seen, str(run.id))):
            known = _facts(seen, str(run.id), now, view, api_error)
            found = diagnose(known)
            if found is None or (view.past and found.category is Category.UNKNOWN):
                continue
            if found.category is Category.NODE_LOST and self._nodes_return and now < self._nodes_return:
                continue
            key = (run.id, f"{view.job or 'waiting'}/{found.category.value}")
            keys.add(key)
            since = self._since.setdefault(key, now)
            if now - _began(view.run, since) >= _settle(found):
                await self._tell(prefect, run, found, key[1])
                await self._act(prefect, run, view, found, now - since, pool)
        return keys

    async def _tell(self, prefect: PrefectClient, run: FlowRun, found: Diagnosis, mark: str) -> None:
        marks = self._marks.get(run.id)
        if marks is None:
            marks = self._marks[run.id] = await published(prefect, run.id)
        # A run that was failed here has lost the objects that told why: what was told then stays.
        failed_before = run.state is not None and run.state.is_failed() and bool(marks)
        # What took a pod away is seen while the pod ends; afterwards there is only that it is gone.
        gone = found.category is Category.POD_DELETED and any(told.startswith(mark.split("/")[0]) for told in marks)
        if mark in marks or failed_before or gone:
            return
        await publish(prefect, run.id, found, mark)
        marks.add(mark)
        print(f"{run.name}: {found.category}: {found.what}")

    async def _act(
        self, prefect: PrefectClient, run: FlowRun, view: View, found: Diagnosis, lasted: timedelta, pool: Pool
    ) -> None:
        starts = await self._transitions.starts(prefect, run)
        if view.past:
            action = decide_on_past(found, starts, self._transitions.retries)
        else:
            action = decide(found, view.run.kind, lasted, starts, self._transitions.retries)
        if action is Action.SHOW:
            await self._transitions.show(prefect, run, found)
        elif action is Action.FAIL:
            await self._transitions.fail(prefect, run, found, starts)
        elif action is Action.RETRY:
            await self._transitions.retry(prefect, run, found, starts, pool)
        over = run.state is not None and run.state.is_final()
        if over and action is not Action.RETRY and not view.past and run.state is not None:
            self._done.add((run.id, run.state.id))

    async def _sweep(self, prefect: PrefectClient, now: datetime) -> None:
        import httpx2

        try:
            found = await asyncio.to_thread(orphans.launched, self._client, self._namespace)
            for run in await orphans.runs_over(prefect, set(found), now):
                print(f"gang of run {run}, which is over: taken away")
                await asyncio.to_thread(orphans.remove, self._client, found[run])
        except httpx2.HTTPError as error:
            print(f"gangs could not be looked at: {clean_line(str(error))}")


def _views(run: Run, jobs: list[str]) -> Iterator[View]:
    """Yield the starts of a run that may need to be told of: those that it went on after, and the present one."""
    present = jobs[-1:] if run.kind != "SCHEDULED" else []
    for job in jobs[: len(jobs) - len(present)]:
        yield View(replace(run, kind="CRASHED", message="", log=()), job, past=True)
    yield View(run, present[0] if present else "", past=False)


def _facts(seen: Snapshot, run: str, now: datetime, view: View, api_error: str) -> Facts:
    if api_error:
        return Facts(now, view.run, nodes=None, api_error=api_error)
    facts = facts_of(seen, run, now, view.run, view.job)
    if not view.past:
        return facts
    # Its gang goes on with the run, and is looked at with the present start.
    own = tuple(pod for pod in facts.pods if pod.job == view.job)
    return replace(facts, jobs=tuple(job for job in facts.jobs if not job.gang), pods=own)


def _settle(found: Diagnosis) -> timedelta:
    if found.category is Category.UNKNOWN:
        return UNKNOWN
    return timedelta(0) if found.category in TAKEN else SETTLE


def _began(run: Run, since: datetime) -> datetime:
    """Return when a trouble began: that of a run that has ended with its end, else when it was seen first."""
    return run.since if run.kind in ("CRASHED", "FAILED") and run.since < since else since
