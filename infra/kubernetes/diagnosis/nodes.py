"""The pod was taken away from the run: evicted, preempted, deleted, or its node is lost, shut down or full."""

from __future__ import annotations

import re
from datetime import timedelta

from infra.kubernetes.diagnosis.facts import Event, Facts, Pod
from infra.kubernetes.diagnosis.record import Category, Diagnosis

SILENT = timedelta(seconds=15)
"""A node not ready for this long is lost, for a running pod on it; before, it may only be restarting its kubelet."""
UNSEEN = ("Unknown", "ContainerStatusUnknown")
"""Reasons of a container's end that nobody saw: containerd's, and kubelet's where that has forgotten the container."""
_AGAIN = "the run is started again by itself and goes on at its last checkpoint"


def diagnose(facts: Facts) -> Diagnosis | None:
    """Return who took a pod away, or why its node does not answer."""
    for pod in facts.pods:
        found = _lost(facts, pod) or _taken(facts, pod)
        if found is not None:
            return found
    return _gone(facts)


def _lost(facts: Facts, pod: Pod) -> Diagnosis | None:
    if not pod.node or pod.phase in ("Succeeded",):
        return None
    node = facts.node(pod.node)
    target = pod.conditions.get("DisruptionTarget")
    # Ended on a node that answers: whatever happened, it was not the node that was lost.
    unknown = pod.phase == "Unknown" or pod.reason == "NodeLost"
    by_taint = target is not None and target.reason == "DeletionByTaintManager"
    by_collector = target is not None and target.reason == "DeletionByPodGC"
    known = bool(facts.nodes)
    if known and node is None and pod.phase in ("Running", "Pending", "Unknown"):
        what = f"Node {pod.node} is gone from the cluster"
        return _node_lost(pod, what, _pod_words(pod))
    if node is None or node.ready:
        return _node_lost(pod, f"Node {pod.node} was lost", _pod_words(pod)) if unknown or by_collector else None
    if pod.phase == "Failed" and not (unknown or by_taint or by_collector):
        return None
    ready = node.conditions.get("Ready")
    since = ready.since if ready else None
    if since and facts.now - since < SILENT and not pod.deleting:
        return None
    words = [f"{since:%H:%M:%S} {ready.reason}: {ready.message}"] if ready and since else []
    return _node_lost(pod, f"Node {pod.node} does not answer any more", (*words, *_pod_words(pod)))


def _node_lost(pod: Pod, what: str, evidence: tuple[str, ...]) -> Diagnosis:
    rank = f", and with it rank {pod.rank}" if pod.rank is not None else ", and with it the run's pod"
    remedy = f"look at {pod.node}: is it on, does its kubelet run (systemctl status kubelet); {_AGAIN} on another node"
    return Diagnosis(Category.NODE_LOST, f"{what}{rank}.", evidence, remedy, passing=True, avoid=(pod.node,))


def _taken(facts: Facts, pod: Pod) -> Diagnosis | None:
    target = pod.conditions.get("DisruptionTarget")
    reason = target.reason if target and target.status == "True" else ""
    if pod.reason in ("Terminated", "NodeShutdown", "Shutdown") or (
        reason == "TerminationByKubelet"
        and "shutdown" in f"{pod.reason} {pod.message} {target.message if target else ''}".lower()
    ):
        what = f"Node {pod.node} shut down and ended the run's pod, as a spot machine that is taken back does"
        return _retried(pod, Category.NODE_SHUTDOWN, what, elsewhere=True)
    if reason == "PreemptionByScheduler" or pod.reason == "Preempted" or pod.said("Preempted"):
        return Diagnosis(
            Category.PREEMPTED,
            f"A pod of higher priority took the place of the run's on {pod.node}.",
            _pod_words(pod),
            f"wait: {_AGAIN}; or give the deployment a higher priority class",
            passing=True,
        )
    if pod.reason == "Evicted" or (reason == "TerminationByKubelet"):
        return _evicted(pod)
    if reason == "DeletionByTaintManager":
        node = facts.node(pod.node)
        taints = [str(taint) for taint in node.taints if taint.effect == "NoExecute"] if node else []
        named = f" ({', '.join(taints)})" if taints else ""
        what = f"Node {pod.node} got a taint{named} that the run's pod does not put up with, and the pod was evicted"
        return _retried(pod, Category.EVICTED, what, elsewhere=True)
    if reason == "EvictionByEvictionAPI":
        return _retried(
            pod, Category.EVICTED, f"The run's pod was evicted from {pod.node} by request, as kubectl drain does"
        )
    if pod.reason in ("OutOfcpu", "OutOfmemory", "OutOfpods", "UnexpectedAdmissionError", "NodeAffinity"):
        what = f"{pod.node} turned the run's pod away when it came: {pod.message or pod.reason}"
        return _retried(pod, Category.EVICTED, what)
    return _cut_off(pod)


def _cut_off(pod: Pod) -> Diagnosis | None:
    """A node that is back before anybody missed it has pods that ended, and says no more of them."""
    for container, end in pod.ends():
        if end.reason in UNSEEN:
            when = f"{end.finished:%H:%M:%S} " if end.finished else ""
            evidence = f"{when}{container.name} ended: {end.reason}, exit code {end.exit_code}"
            what = f"Node {pod.node} went off under the run's pod, or containerd there, as at a power cut."
            remedy = f"look why, `last -x` on {pod.node}; {_AGAIN}"
            return Diagnosis(Category.NODE_LOST, what, (evidence, *_pod_words(pod)), remedy, passing=True)
    return None


def _evicted(pod: Pod) -> Diagnosis:
    message = " ".join([pod.message, *(event.message for event in pod.said("Evicted"))])
    over = re.search(
        r"(?:exceeds the total limit of containers|exceeded its local ephemeral storage limit) ['\"]?([\w.]+)",
        message,
    )
    volume = re.search(r"Usage of EmptyDir volume \"([^\"]+)\" exceeds the limit \"([^\"]+)\"", message)
    if over or volume:
        limit = over.group(1) if over else f"{volume.group(2)} (volume {volume.group(1)})" if volume else ""
        return Diagnosis(
            Category.DISK_PRESSURE,
            f"The run wrote more to its node's disk than its limit of {limit}, and was evicted from {pod.node}.",
            _pod_words(pod),
            "raise the limit of ephemeral storage, or write results to the share",
        )
    if re.search(r"ephemeral-storage|DiskPressure|imagefs|nodefs|inodes", message):
        what = f"The disk of {pod.node} is nearly full, and the run's pod was evicted"
        hint = f"free disk on {pod.node}: crictl rmi --prune, and look at the DVC cache;"
        return _retried(pod, Category.DISK_PRESSURE, what, hint, elsewhere=True)
    if re.search(r"low on resource: memory|MemoryPressure", message):
        what = f"{pod.node} was short of memory and evicted the run's pod"
        return _retried(pod, Category.EVICTED, what, "request as much memory as the run needs;", elsewhere=True)
    what = f"The run's pod was evicted from {pod.node}{f': {pod.message}' if pod.message else ''}"
    return _retried(pod, Category.EVICTED, what, elsewhere=True)


def _retried(
    pod: Pod, category: Category, what: str, hint: str = "nothing to do:", *, elsewhere: bool = False
) -> Diagnosis:
    """Return what the next start is spared, on another node where this one is bad."""
    where, avoid = (" on another node", (pod.node,)) if elsewhere else ("", ())
    return Diagnosis(category, f"{what}.", _pod_words(pod), f"{hint} {_AGAIN}{where}", passing=True, avoid=avoid)


def _gone(facts: Facts) -> Diagnosis | None:
    """A run that was at work, and neither its pod nor an end of it is left."""
    run = facts.run
    if facts.api_error or run is None or run.kind not in ("RUNNING", "CRASHED"):
        return None
    own = [job for job in facts.jobs if not job.gang]
    pods = [pod for pod in facts.pods if not facts.gang or pod.job != facts.gang.name]
    for pod in pods:
        if pod.deleting and pod.phase != "Succeeded":
            return _deleted(pod.name, pod.node, _pod_words(pod))
    if own and not pods and not own[0].succeeded and any(event.reason == "SuccessfulCreate" for event in own[0].events):
        events = tuple(str(event) for event in own[0].events[-2:])
        return _deleted(own[0].name, "", events)
    if not own and not pods and run.kind == "CRASHED" and "job was deleted" in run.message:
        return Diagnosis(
            Category.POD_DELETED,
            "Somebody deleted the run's Job.",
            (run.message,),
            "start the run again, if that was not meant: it goes on at its last checkpoint",
        )
    return None


def _deleted(name: str, node: str, evidence: tuple[str, ...]) -> Diagnosis:
    return Diagnosis(
        Category.POD_DELETED,
        f"The run's pod {name} was deleted{f' from {node}' if node else ''} while it was at work.",
        evidence,
        f"nothing to do: {_AGAIN}",
        passing=True,
    )


def _pod_words(pod: Pod) -> tuple[str, ...]:
    """Return what the cluster says of the pod's end, in its own words."""
    words: list[str] = []
    target = pod.conditions.get("DisruptionTarget")
    if target and target.since:
        words.append(f"{target.since:%H:%M:%S} {target.reason}: {target.message}")
    if pod.reason or pod.message:
        words.append(": ".join(filter(None, (pod.reason, pod.message))))
    kept: list[Event] = [
        event
        for event in pod.events
        if event.reason in ("Evicted", "Preempted", "NodeNotReady", "TaintManagerEviction", "Killing", "NodeShutdown")
    ]
    words += [str(event) for event in kept[-3:]]
    return tuple(words)
