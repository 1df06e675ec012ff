"""The gang of a distributed training: ranks that do not come together, and the network between them.

The texts are those of torch.distributed (elastic rendezvous, TCPStore), Gloo and NCCL.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from infra.kubernetes.diagnosis.facts import Facts, Job, Pod
from infra.kubernetes.diagnosis.record import Category, Diagnosis

_RENDEZVOUS = re.compile(
    r"RendezvousTimeoutError|RendezvousConnectionError|RendezvousClosedError|"
    r"Timed out after \d+ seconds waiting for clients|timed out waiting for (?:clients|ranks|peers)|"
    r"The client socket has timed out after|DistStoreError|The server socket has (?:failed|timed out)|"
    r"failed to connect to .*:\d+ .*TCPStore|TCPStore.*(?:timeout|timed out)|Rendezvous .*timed out",
    re.IGNORECASE,
)
_GLOO = re.compile(
    r"gloo/transport/tcp.*(?:Connection (?:closed by peer|reset by peer|refused)|timed out|No route to host)|"
    r"[Gg]loo connectFullMesh failed|Connection closed by peer \[|makeDeviceForHostname|"
    r"Unable to resolve (?:hostname|address)|Timed out waiting \d+ms for (?:send|recv) operation"
)
_NCCL = re.compile(
    r"NCCL error|ncclSystemError|ncclRemoteError|ncclInternalError|ncclUnhandledCudaError|NCCL WARN|"
    r"Watchdog caught collective operation timeout|socketStartConnect|NCCL communicator was aborted"
)
_NAME = re.compile(r"Name or service not known|Temporary failure in name resolution|nodename nor servname|"
                   r"could not be resolved")  # fmt: skip


def rendezvous(facts: Facts, cause: Callable[[Facts], Diagnosis | None]) -> Diagnosis | None:
    """Return which ranks of a gang are missing, and why.

    Args:
        cause: says why a single pod is not at work, given facts that hold only that pod.
    """
    gang = facts.gang
    if gang is None:
        return None
    pods = _members(facts, gang)
    lines = _lines(pods, _RENDEZVOUS)
    if not lines:
        return None
    missing = _missing(gang, pods)
    if not missing:
        waiting = _lines(pods, _NAME)
        why = "the name of rank 0 is not resolved" if waiting else "all pods run, but they do not reach each other"
        return Diagnosis(
            Category.RENDEZVOUS,
            f"The {gang.completions} workers of {gang.name} did not come together in time: {why}.",
            (*lines[:2], *waiting[:1]),
            "look at network policies and DNS between the nodes: the port of the rendezvous has to be open",
            passing=True,
        )
    reasons: list[str] = []
    evidence: list[str] = []
    passing, remedy = True, "mend what keeps the missing ranks from their work"
    for rank, pod in missing:
        found = cause(replace(facts, pods=(pod,), run=None)) if pod is not None else None
        if found is not None:
            passing, remedy = passing and found.passing, found.remedy
            reasons.append(f"rank {rank}: {found.category}, {_small(found.what)}")
            evidence += found.evidence[:1]
        elif pod is None:
            reasons.append(f"rank {rank} has no pod")
        else:
            reasons.append(f"rank {rank} is {pod.phase.lower()} on {pod.node or 'no node'}")
    count = f"{len(missing)} of {gang.completions} workers"
    what = f"{count} of {gang.name} did not come to the rendezvous in time: {'; '.join(reasons)}"
    return Diagnosis(Category.RENDEZVOUS, f"{what.rstrip('.')}.", (*lines[:2], *evidence[:3]), remedy, passing)


def network(facts: Facts) -> Diagnosis | None:
    """Return that ranks which had come together lost each other, although none of them failed by itself."""
    gang = facts.gang
    pods = _members(facts, gang) if gang else facts.pods
    for name, pattern in (("NCCL", _NCCL), ("Gloo", _GLOO)):
        lines = _lines(pods, pattern)
        if not lines:
            continue
        ended = [pod for pod in pods if any(end.exit_code for _, end in pod.ends())]
        if not ended:
            continue
        who = ", ".join(f"{pod.rank} on {pod.node}" for pod in ended if pod.rank is not None)
        what = f"The ranks lost each other in the network ({name})"
        hint = "NCCL_SOCKET_IFNAME" if name == "NCCL" else "GLOO_SOCKET_IFNAME"
        return Diagnosis(
            Category.NETWORK,
            f"{what}: rank {who} says so." if who else f"{what}.",
            lines[-3:],
            f"look at the network between the nodes; with several interfaces set {hint} to the one of the pods (eth0)",
            passing=True,
        )
    return None


def lost_a_peer(pod: Pod) -> bool:
    """Whether a pod's log says that another rank went away."""
    return bool(_lines([pod], _NCCL) or _lines([pod], _GLOO))


def _members(facts: Facts, gang: Job) -> tuple[Pod, ...]:
    """Return the newest pod of each rank."""
    newest: dict[int | None, Pod] = {}
    for pod in facts.pods:
        if pod.job == gang.name:
            newest[pod.rank] = pod
    return tuple(newest.values())


def _missing(gang: Job, pods: Iterable[Pod]) -> list[tuple[int, Pod | None]]:
    known = {pod.rank: pod for pod in pods}
    at_work = {rank for rank, pod in known.items() if pod.phase in ("Running", "Succeeded") and not pod.deleting}
    # One that gave up waiting has been there.
    came = {rank for rank, pod in known.items() if _lines([pod], _RENDEZVOUS)}
    return [(rank, known.get(rank)) for rank in range(gang.completions) if rank not in at_work | came]


def _lines(pods: Iterable[Pod], pattern: re.Pattern[str]) -> tuple[str, ...]:
    return tuple(
        f"rank {pod.rank}: {line}" if pod.rank is not None else line
        for pod in pods
        for container in pod.containers
        for line in container.log
        if pattern.search(line)
    )


def _small(sentence: str) -> str:
    """Return a sentence as a part of another; names keep their capitals."""
    first = sentence.split(" ", 1)[0]
    return sentence[0].lower() + sentence[1:] if first in ("The", "No", "A", "Image", "Volume", "Node") else sentence
