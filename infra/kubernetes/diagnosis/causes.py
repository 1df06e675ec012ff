"""Asks every family of troubles in order: the root cause comes before what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from infra.kubernetes.diagnosis import code, image, memory, nodes, ranks, scheduling, together, volumes, waiting
from infra.kubernetes.diagnosis.facts import Facts
from infra.kubernetes.diagnosis.record import Category, Diagnosis

Cause = Callable[[Facts], Diagnosis | None]

# A pod on a lost node has stale statuses: its node comes first. What a pod waits for hides nothing behind it. Memory
# comes before exit codes: both are 137. A deadline ends pods by SIGTERM, as a deletion does.
_POD: tuple[Cause, ...] = (
    code.deadline,
    memory.out_of_memory,
    memory.shm,
    nodes.diagnose,
    scheduling.refused,
    scheduling.queued,
    scheduling.unbound,
    together.unplaced,
    scheduling.unschedulable,
    image.diagnose,
    volumes.missing,
    volumes.mount_failed,
    image.slow,
)


def diagnose(facts: Facts) -> Diagnosis | None:
    """Return the root cause of a run's trouble; None when there is none to be seen."""
    for cause in (waiting.api_away, waiting.submission, of_pods, _gang, waiting.not_begun):
        if (found := cause(facts)) is not None:
            return found
    return _last(facts) if facts.run is not None and facts.run.kind in ("FAILED", "CRASHED") else None


def of_pods(facts: Facts) -> Diagnosis | None:
    """Return what the pods' and Jobs' own objects tell, without the words of the code."""
    return next((found for cause in _POD if (found := cause(facts)) is not None), None)


def _gang(facts: Facts) -> Diagnosis | None:
    return ranks.rendezvous(facts, of_pods) or code.prefect_unreachable(facts) or _code(facts)


def _code(facts: Facts) -> Diagnosis | None:
    """A rank that ended by itself comes before those that lost it in the network."""
    network = ranks.network(facts)
    if network is None:
        return code.ended(facts)
    others = tuple(pod for pod in facts.pods if not ranks.lost_a_peer(pod))
    return code.ended(replace(facts, pods=others, run=None)) or network


def _last(facts: Facts) -> Diagnosis | None:
    run = facts.run
    if run is None:
        return None
    return Diagnosis(
        Category.UNKNOWN,
        f"The run ended as {run.state}, and nothing on the cluster tells why.",
        (run.message, *run.log[-4:]) if run.message else tuple(run.log[-4:]),
        "read the run's log: prefect flow-run logs; its pod may have been removed already (cluster.training.ttl_s)",
    )
