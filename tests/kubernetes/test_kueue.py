"""What Kueue says of Jobs that it holds back, read from Workloads as Kueue 0.13 writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from infra.kubernetes.diagnosis.causes import diagnose
from infra.kubernetes.diagnosis.evidence import facts_of
from infra.kubernetes.diagnosis.record import Category
from infra.kubernetes.diagnosis.snapshot import Snapshot
from infra.kubernetes.gang.pod import FLOW_RUN, GANG
from infra.kubernetes.kueue import QUEUE, is_never, waits

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BEGIN = "couldn't assign flavors to pod set main: "
FULL = "insufficient unused quota for cpu in flavor any, 500m more needed"
NEVER = (
    "insufficient quota for cpu in flavor any, previously considered podsets requests (0) + current podset request (2) "
    "> maximum capacity (1500m)"
)


def workload(job: str, status: str, message: str) -> dict[str, Any]:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": "u-1", "controller": True}
    condition = {"type": "QuotaReserved", "status": status, "reason": "Pending", "message": message}
    return {"metadata": {"name": f"job-{job}-62ac8", "ownerReferences": [owner]}, "status": {"conditions": [condition]}}


def gang(suspend: bool) -> dict[str, Any]:
    labels = {GANG: "lin-1", FLOW_RUN: "run-1", QUEUE: "team"}
    spec = {"completions": 2, "suspend": suspend}
    return {"metadata": {"name": "lin-1", "labels": labels, "creationTimestamp": NOW.isoformat()}, "spec": spec}


def test_only_what_is_held_back_waits() -> None:
    known = [workload("lin-1", "False", f"{BEGIN}\n {FULL}"), workload("lin-2", "True", "Quota reserved in all")]
    fresh = {"metadata": {"name": "job-lin-3-1", "ownerReferences": []}}
    assert waits([*known, fresh]) == {"lin-1": BEGIN + FULL}
    assert (is_never(FULL), is_never(NEVER)) == (False, True)


@pytest.mark.parametrize(
    ("said", "sentence", "remedy"),
    [
        (BEGIN + FULL, FULL, "wait for others to end, or have the queue's quota raised"),
        (BEGIN + NEVER, NEVER, "ask for less, or have the queue's quota raised: it can never give so much"),
        ("ClusterQueue all is inactive", "ClusterQueue all is inactive", "wait for others to end"),
        ("", "Kueue has not looked at it yet", "wait for others to end"),
    ],
)
def test_a_gang_that_waits_is_told_for_what(said: str, sentence: str, remedy: str) -> None:
    found = diagnose(facts_of(Snapshot(jobs=[gang(True)], waits={"lin-1": said} if said else {}), "run-1", NOW))
    assert found is not None
    assert found.category is Category.QUEUED
    assert found.what == f"The 2 workers of lin-1 wait in queue team: {sentence}."
    assert found.remedy.startswith(remedy)
    assert found.evidence == ((said,) if said else ())
    assert found.passing


def test_a_gang_that_was_let_go_does_not_wait() -> None:
    assert diagnose(facts_of(Snapshot(jobs=[gang(False)]), "run-1", NOW)) is None
