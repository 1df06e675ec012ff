"""A gang that Volcano places whole or not at all: its pods say nothing of use, so the room for it is counted."""

from __future__ import annotations

from datetime import timedelta

from infra.kubernetes.diagnosis.facts import Facts, Node, Pod
from infra.kubernetes.diagnosis.quantities import told
from infra.kubernetes.diagnosis.record import Category, Diagnosis
from infra.kubernetes.diagnosis.scheduling import free, spare, why_barred

SCHEDULER = "volcano"
UNSAID = timedelta(seconds=15)
"""How long a pod may wait before that is a trouble although nothing is said of it."""


def unplaced(facts: Facts) -> Diagnosis | None:
    """Return how many of a gang's workers there would be room for."""
    gang = facts.gang
    pods = [pod for pod in facts.pods if gang and pod.job == gang.name and _waits(pod)]
    said = [pod.conditions["PodScheduled"].message for pod in pods if "PodScheduled" in pod.conditions]
    if gang is None or not pods or not (said or facts.now - pods[0].created > UNSAID):
        return None
    evidence = tuple(dict.fromkeys(said))
    wanted = {**pods[0].requests, "pods": 1.0}
    reasons = [(node, why_barred(pods[0], node)) for node in facts.nodes or ()]
    usable = [node for node, reason in reasons if reason is None]
    room = sum(min(_times(node, name, value) for name, value in wanted.items()) for node in usable)
    who = f"The {len(pods)} workers of {gang.name} are placed together or not at all"
    if room >= len(pods):
        what = f"{who}, and Volcano does not place them although they have room: its queue may be full."
        remedy = "look at the queue: kubectl get queues.scheduling.volcano.sh -o yaml"
        return Diagnosis(Category.UNSCHEDULABLE, what, evidence, remedy, passing=True)
    short = [name for name, value in wanted.items() if sum(_times(node, name, value) for node in usable) < len(pods)]
    wish = " and ".join(told(name, wanted[name]) for name in short) or "all of its resources on one node"
    nodes = [spare(node, name) for node in usable for name in short]
    nodes += [f"{node.name} {reason}" for node, reason in reasons if reason is not None]
    what = f"{who}, and there is room for {room}: each wants {wish}; {', '.join(nodes)}."
    whole = sum(_times(node, name, wanted[name], empty=True) for node in usable for name in short[:1])
    remedy = "wait for other runs to end, ask for less, or add a node"
    if whole < len(pods):
        remedy = "lower workers or what each of them wants, or add nodes: empty ones would not do either"
    return Diagnosis(Category.UNSCHEDULABLE, what, evidence, remedy, passing=True)


def _waits(pod: Pod) -> bool:
    return pod.scheduler == SCHEDULER and pod.phase == "Pending" and not pod.node and pod.deleting is None


def _times(node: Node, resource: str, wanted: float, *, empty: bool = False) -> int:
    """How often an amount fits on a node; as often as anybody could ask where nothing is wanted."""
    there = node.allocatable.get(resource, 0.0) if empty else free(node, resource)
    return max(0, int(there / wanted + 1e-9)) if wanted else 1 << 20
