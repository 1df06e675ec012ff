"""What is made of a gang's pods and logs: who waits for what, what happened, and why it failed."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from infra.ddp.failure import Transcript
from infra.ddp.launch import Gang
from infra.kubernetes.gang.verdict import why_failed
from infra.kubernetes.gang.workers import Worker, changes, missing, newest, read_worker

LOGS = Path(__file__).parent / "logs"
REPORT = """\
[rank {rank}] {words}
E1123 20:23:26.735000 10 torch/distributed/elastic/api.py:1002] failed (exitcode: {code}) local_rank: 0 (pid: 15) of it
============================================================
ml/ddp/linear.py FAILED
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-23_20:23:26
  host      : linear-1-{rank}
  rank      : {rank} (local_rank: 0)
  exitcode  : {code} (pid: 15)
  error_file: <N/A>
============================================================
"""


@pytest.fixture
def gang() -> Gang:
    return Gang(
        "linear-1", "run-1", ("ml/ddp/linear.py",), 2, 2, 1, 1, 1 << 30, 0, "gloo", PurePosixPath("c"), 3, 300, 600
    )


def pod(index: int, phase: str, *, state: dict[str, Any] | None = None, node: str = "node1", **status: Any) -> Worker:
    return read_worker(
        {
            "metadata": {
                "name": f"linear-1-{index}-x",
                "uid": status.pop("uid", f"u{index}"),
                "creationTimestamp": status.pop("made", "2026-01-01T00:00:00Z"),
                "labels": {"batch.kubernetes.io/job-completion-index": str(index)},
            },
            "spec": {
                "nodeName": node,
                "containers": [{"name": "worker", "resources": {"limits": {"memory": "1024Mi"}}}],
            },
            "status": {
                "phase": phase,
                "containerStatuses": [{"name": "worker", "state": state or {}}],
                **status,
            },
        }
    )


def transcript(text: str) -> Transcript:
    found = Transcript()
    for line in text.splitlines():
        found.add(line)
    return found


def test_the_rank_that_failed_by_itself_comes_before_those_that_lost_it(gang: Gang) -> None:
    lost_peer = next(
        line.removeprefix("[rank 1] ")
        for line in (LOGS / "rendezvous_host_lost.txt").read_text().splitlines()
        if "gloo/transport" in line
    )
    ended = {"terminated": {"exitCode": 1, "reason": "Error"}}
    victim = pod(0, "Failed", state=ended)
    broken = pod(1, "Failed", state={"terminated": {"exitCode": 3, "reason": "Error"}}, node="node2")
    logs = {
        "u0": transcript(REPORT.format(rank=0, code=1, words=lost_peer)),
        "u1": transcript(REPORT.format(rank=1, code=3, words="the file is broken")),
    }
    problem = why_failed(gang, {"reason": "PodFailurePolicy"}, [victim, broken], [], logs)
    assert problem.where == "linear-1, worker 1 on node2, rank 1"
    assert problem.what.startswith("ended with exit code 3")
    assert "the file is broken" in problem.what


def test_a_worker_without_memory_is_told_with_its_limit(gang: Gang) -> None:
    killed = pod(1, "Failed", state={"terminated": {"exitCode": 137, "reason": "OOMKilled"}})
    problem = why_failed(gang, {"reason": "BackoffLimitExceeded"}, [killed], ["worker 0 on node2 is lost"], {})
    assert "worker 1 on node1 ended with exit code 137: it used more memory than its limit of 1024Mi" in problem.what
    assert "worker 0 on node2 is lost" in problem.what
    assert problem.remedy == "raise worker.memory"


def test_a_worker_whose_node_went_off_is_none_that_failed_by_itself(gang: Gang) -> None:
    cut = pod(1, "Failed", state={"terminated": {"exitCode": 255, "reason": "Unknown"}})
    problem = why_failed(gang, {"reason": "BackoffLimitExceeded"}, [cut], [], {})
    assert "lost workers more often than max_restarts (3)" in problem.what
    assert "worker 1 on node1 ended with exit code 255: its node went off" in problem.what


def test_a_deadline_is_told(gang: Gang) -> None:
    assert "deadline" in why_failed(gang, {"reason": "DeadlineExceeded"}, [], [], {}).what


def test_what_happens_to_pods_is_noted_once() -> None:
    starting = pod(1, "Pending", state={"waiting": {"reason": "ContainerCreating"}})
    running = pod(1, "Running", state={"running": {}})
    evicted = pod(1, "Failed", reason="Evicted", message="The node was low on resource: memory.")
    another = pod(1, "Running", state={"running": {}}, uid="v1", made="2026-01-01T00:01:00Z", node="node2")
    assert changes({}, {"u1": starting}) == []
    assert changes({"u1": starting}, {"u1": running}) == ["worker 1 runs on node1"]
    assert changes({"u1": running}, {"u1": running}) == []
    assert changes({"u1": running}, {"u1": evicted}) == [
        "worker 1 on node1 ended: its node put it out: The node was low on resource: memory."
    ]
    assert changes({"u1": evicted}, {"u1": evicted, "v1": another}) == [
        "worker 1 is replaced by another pod",
        "worker 1 runs on node2",
    ]
    assert changes({"u1": running}, {}) == ["worker 1 on node1 is lost: its pod is gone"]
    assert newest([evicted, another])[1] == another


def test_who_is_missing_and_why() -> None:
    unplaced = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}
    refused = 'Back-off pulling image "r/i:1": ErrImagePull: r/i:1: not found'
    workers = {
        0: pod(0, "Running", state={"running": {}}),
        1: pod(1, "Pending", conditions=[unplaced]),
        2: pod(2, "Pending", state={"waiting": {"reason": "ImagePullBackOff", "message": refused}}),
    }
    assert missing(workers, 4, "no pod: exceeded quota") == [
        "worker 1: Unschedulable: 0/2 nodes",
        "worker 2: the image cannot be pulled: r/i:1: not found",
        "worker 3: no pod: exceeded quota",
    ]
    assert [workers[index].hopeless for index in range(3)] == [False, False, True]
