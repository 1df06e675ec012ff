"""A person asks what is wrong with a run: what was published of it, or what can be seen now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from configs.problems import Problem, UserError
from infra.kubernetes.diagnosis.causes import diagnose
from infra.kubernetes.diagnosis.evidence import facts_of
from infra.kubernetes.diagnosis.facts import Facts
from infra.kubernetes.diagnosis.masking import clean_line
from infra.kubernetes.diagnosis.publish import newest
from infra.kubernetes.diagnosis.runs import read_pool, read_runs, run_facts
from infra.kubernetes.diagnosis.snapshot import read_objects, read_surroundings

if TYPE_CHECKING:
    from lightkube import Client
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

ENDED = ("FAILED", "CRASHED")


@dataclass(frozen=True)
class Answer:
    """What is said of a run; ``told`` is empty when nothing is wrong with it, as far as can be seen."""

    run: str
    state: str
    told: str
    id: str


async def ask(client: Client | None, namespace: str, pool: str, named: str | None) -> Answer | None:
    """Return what is wrong with the run ``named`` (name or id), or the newest of ``pool`` that is in trouble.

    Args:
        client: None: the cluster is not asked.

    Returns:
        None when no run of the pool is in trouble.

    Raises:
        UserError: no such run, or the Prefect server does not answer.
    """
    import httpx
    from prefect.client.orchestration import get_client

    try:
        async with get_client() as prefect:
            now = datetime.now(UTC)
            if named:
                return await _answer(prefect, client, namespace, await _named(prefect, named), now)
            runs = await read_runs(prefect, pool, now)
            for run in sorted(runs, key=lambda run: run.state.timestamp if run.state else now, reverse=True):
                answer = await _answer(prefect, client, namespace, run, now)
                if answer.told:
                    return answer
            return None
    except httpx.HTTPError as error:
        what = f"does not answer: {clean_line(str(error)) or type(error).__name__}"
        raise UserError(Problem("Prefect", what, "mlops status; for a cluster mlops platform connect")) from None


async def _named(prefect: PrefectClient, named: str) -> FlowRun:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.exceptions import ObjectNotFound

    try:
        return await prefect.read_flow_run(UUID(named))
    except (ValueError, ObjectNotFound):
        found = await prefect.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[named])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=1,
        )
    if not found:
        raise UserError(Problem(named, "there is no such run", "give a run's name or id: prefect flow-run ls"))
    return found[0]


async def _answer(prefect: PrefectClient, client: Client | None, namespace: str, run: FlowRun, now: datetime) -> Answer:
    state = run.state.name if run.state else "Scheduled"
    kind = run.state.type.value if run.state else "SCHEDULED"
    told = await newest(prefect, run.id) if kind in ENDED else None
    if told is None:
        pool = await read_pool(prefect, run.work_pool_name or "")
        others = await read_runs(prefect, pool.name, now)
        facts = _facts(client, namespace, str(run.id), now)
        found = diagnose(replace(facts, run=await run_facts(prefect, run, pool, others)))
        told = found.text() if found else ""
    return Answer(run.name, str(state), told, str(run.id))


def _facts(client: Client | None, namespace: str, run: str, now: datetime) -> Facts:
    import httpx2

    if client is None:
        return Facts(now, nodes=None)
    try:
        seen = read_surroundings(client, namespace, read_objects(client, namespace))
    except httpx2.HTTPError as error:
        return Facts(now, nodes=None, api_error=clean_line(f"{type(error).__name__}: {error}"))
    return facts_of(seen, run, now)
