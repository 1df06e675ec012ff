"""What is done about a run and its Jobs that no longer belong together, and how long it must have lasted."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import aiohttp
import pytest
from kubernetes_asyncio.client.exceptions import ApiException
from prefect.client.schemas.objects import FlowRun, State, StateType

from infra.kubernetes.lost import Job, Lost, Remedy
from infra.kubernetes.patience import Answer, judge

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALIVE, ENDED = Job("wise-otter-1", "mlops", ""), Job("wise-otter-0", "mlops", "backoff limit", "2026-01-01")


def run_in(kind: StateType, *, began: bool = True, pid: str | None = "mlops:wise-otter-1") -> FlowRun:
    state: State[None] = State(type=kind, timestamp=NOW)
    started = NOW if began else None
    return FlowRun(id=uuid4(), flow_id=uuid4(), state=state, infrastructure_pid=pid, start_time=started)


@pytest.mark.parametrize(
    ("run", "jobs", "remedy", "after_s"),
    [
        (run_in(StateType.RUNNING), [ALIVE], None, 0),
        (run_in(StateType.PENDING), [ALIVE, ENDED], None, 0),
        (run_in(StateType.RUNNING), [], Remedy.CRASH, 30),
        (run_in(StateType.RUNNING), [ENDED], Remedy.CRASH, 30),
        (run_in(StateType.RUNNING, pid="elsewhere:job"), [], None, 0),
        (run_in(StateType.PENDING, pid=None), [], Remedy.TAKE_OVER, 30),
        (run_in(StateType.PENDING), [ENDED], Remedy.TAKE_OVER, 30),
        (run_in(StateType.PENDING, pid=None), [ALIVE], Remedy.REMEMBER, 30),
        (run_in(StateType.CANCELLING, began=False), [ALIVE], Remedy.CANCEL, 0),
        (run_in(StateType.CANCELLING), [ALIVE], Remedy.CANCEL, 60),
        (run_in(StateType.CANCELLING), [], Remedy.CANCEL, 30),
        (run_in(StateType.CRASHED), [ALIVE], Remedy.DELETE_JOB, 60),
        (run_in(StateType.CRASHED), [ENDED], None, 0),
    ],
)
def test_mismatches(run: FlowRun, jobs: list[Job], remedy: Remedy | None, after_s: int) -> None:
    lost = Lost("mlops")

    def found(seconds: int) -> list[Remedy]:
        return [item.remedy for item in lost.find([run], {run.id: jobs}, (), NOW + timedelta(seconds=seconds))]

    seen = [second for second in range(0, 100, 10) if found(second)]
    assert seen == (list(range(after_s, 100, 10)) if remedy else [])
    assert set(found(100)) == ({remedy} if remedy else set())
    assert not lost.find([run], {run.id: jobs}, {run.id}, NOW + timedelta(seconds=200))


def test_a_mismatch_that_ends_begins_anew() -> None:
    lost, run = Lost("mlops"), run_in(StateType.RUNNING)
    for second, jobs in ((0, []), (20, [ALIVE]), (40, [])):
        assert not lost.find([run], {run.id: jobs}, (), NOW + timedelta(seconds=second))


@pytest.mark.parametrize(
    ("status", "reason", "message", "answer"),
    [
        (503, "ServiceUnavailable", "", Answer.AWAY),
        (429, "TooManyRequests", "", Answer.AWAY),
        (409, "Conflict", "the object has been modified", Answer.AWAY),
        (409, "AlreadyExists", 'jobs.batch "a" already exists', Answer.EXISTS),
        (403, "Forbidden", "exceeded quota: runs", Answer.FULL),
        (403, "Forbidden", 'User "x" cannot create resource "jobs"', Answer.REFUSED),
        (422, "Invalid", "spec.template: Required value", Answer.WRONG),
        (404, "NotFound", 'namespaces "mlops" not found', Answer.WRONG),
    ],
)
def test_answers(status: int, reason: str, message: str, answer: Answer) -> None:
    refusal = ApiException(status=status)
    refusal.body = json.dumps({"reason": reason, "message": message})
    wrapped = RuntimeError("Unable to create Kubernetes job")
    wrapped.__cause__ = refusal
    assert judge(refusal)[0] is judge(wrapped)[0] is answer
    assert message in judge(wrapped)[1]


def test_no_answer_or_one_that_is_no_status_is_away() -> None:
    plain = ApiException(status=502)
    plain.body = "Bad gateway"
    for error in (plain, aiohttp.ServerDisconnectedError(), TimeoutError(), ConnectionRefusedError(111, "refused")):
        assert judge(error)[0] is Answer.AWAY
    assert judge(ValueError("no such field"))[0] is Answer.WRONG
