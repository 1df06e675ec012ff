"""Memory has run out: whose limit it was, and whether /dev/shm was the part that was too small."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from infra.kubernetes.diagnosis.facts import Container, Ended, Event, Facts, Node, Pod
from infra.kubernetes.diagnosis.quantities import MIB, size
from infra.kubernetes.diagnosis.record import Category, Diagnosis

SIGBUS, SIGKILL = 128 + 7, 128 + 9
KUBELET_SHM = 64 * MIB
"""What a container gets as /dev/shm when nobody mounts one: containerd's and CRI-O's default."""
_BUS = re.compile(
    r"Bus error|insufficient shared memory \(shm\)|SIGBUS|signal 7\b|exit(?:ed| status| code)?:? -7\b|exit status 135"
)
_SPACE = re.compile(
    r"No space left on device.*(/dev/shm|torch_|psm_)|(/dev/shm|torch_).*No space left on device|shm_open|"
    r"unable to (?:open|mmap|write).*shared memory"
)
_CUDA = re.compile(
    r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED|CUDA error: out of memory"
)
_HOST = re.compile(
    r"^MemoryError|can't allocate memory|Cannot allocate memory|std::bad_alloc|Unable to allocate .+ for an array"
)
_KILLED = re.compile(
    r"died with <Signals\.SIGKILL|signal 9\b|SIGKILL|exit status 137|exit(?:ed| status| code)?:? -9\b|^Killed$|"
    r"killed by signal: Killed"
)
NEAR = timedelta(minutes=2)


def shm(facts: Facts) -> Diagnosis | None:
    """Return that /dev/shm is too small: a bus error, or a worker's message about shared memory."""
    for pod in facts.pods:
        for container in pod.containers:
            ended = container.ended
            lines = _lines(container.log, _BUS, _SPACE)
            by_signal = ended is not None and ended.exit_code == SIGBUS
            if by_signal or (lines and (ended is None or ended.exit_code != 0)):
                signal = (f"{container.name} ended with exit code {SIGBUS}, a bus error (SIGBUS)",) if by_signal else ()
                return _shm(pod, container, (*signal, *lines))
    if facts.run and facts.run.kind in ("FAILED", "CRASHED"):
        lines = _lines([facts.run.message, *facts.run.log], _BUS, _SPACE)
        if lines:
            return _shm(*_newest(facts), lines)
    return None


def _shm(pod: Pod | None, container: Container | None, evidence: tuple[str, ...]) -> Diagnosis:
    if pod is None:
        has = "its /dev/shm"
    elif pod.shm is None:
        has = f"its /dev/shm of {size(KUBELET_SHM)}, which is what a pod gets without a memory volume"
    elif pod.shm:
        has = f"its /dev/shm of {size(pod.shm)}"
    else:
        has = "its /dev/shm, which has no limit of its own but counts into the pod's memory"
    limit = container.memory_limit if container else None
    room = f" (it counts into the memory limit, now {size(limit)})" if limit else ""
    return Diagnosis(
        Category.SHM,
        f"The code filled {has}, and was ended by a bus error.",
        evidence[-4:],
        f"raise cluster.training.shm or the deployment's shm{room}, or load data with fewer or no worker processes",
    )


def out_of_memory(facts: Facts) -> Diagnosis | None:
    """Return whose memory ran out: the container's limit, the node, or a GPU."""
    for pod in facts.pods:
        for container, ended in pod.ends():
            if ended.reason == "OOMKilled":
                return _killed(facts, pod, container, ended)
            system = _system_oom(facts.node(pod.node), ended.finished)
            if ended.exit_code == SIGKILL and system:
                return _node_oom(pod, container, system)
        for container in pod.containers:
            if container.ended is None or container.ended.exit_code:
                found = _told(container, container.log)
                if found is not None and container.ended is not None:
                    return found
    if facts.run and facts.run.kind in ("FAILED", "CRASHED"):
        return _told(_newest(facts)[1], [facts.run.message, *facts.run.log])
    return None


def _killed(facts: Facts, pod: Pod, container: Container, ended: Ended) -> Diagnosis:
    when = f"{ended.finished:%H:%M:%S} " if ended.finished else ""
    evidence = (f"{when}{container.name} ended: OOMKilled, exit code {ended.exit_code}", *container.log[-2:])
    limit = container.memory_limit
    system = _system_oom(facts.node(pod.node), ended.finished)
    if limit is None or system:
        return _node_oom(pod, container, system)
    shared = f"; its /dev/shm of up to {size(pod.shm)} counts into it" if pod.shm else ""
    return Diagnosis(
        Category.OUT_OF_MEMORY,
        f"{_who(facts, pod)} used more memory than its container's limit of {size(limit)}{shared}.",
        evidence,
        f"raise memory above {size(limit)} (cluster.training.memory or the deployment's), or use a smaller batch,"
        " smaller images or fewer loader processes",
    )


def _node_oom(pod: Pod, container: Container, system: tuple[Event, ...]) -> Diagnosis:
    asked = f"asked for {size(container.memory_request)}" if container.memory_request else "asked for none"
    limit = (
        f"its limit of {size(container.memory_limit)} was not the one" if container.memory_limit else "it had no limit"
    )
    return Diagnosis(
        Category.OUT_OF_MEMORY,
        f"Node {pod.node} itself ran out of memory and killed the run's container, which {asked}; {limit}.",
        tuple(str(event) for event in system[-2:])
        or (f"{container.name} ended: OOMKilled, without a limit of its own",),
        "set memory to what the run really needs, so that the node is not promised twice",
    )


def _told(container: Container | None, log: Iterable[str]) -> Diagnosis | None:
    log = list(log)
    if lines := _lines(log, _CUDA):
        return Diagnosis(
            Category.OUT_OF_MEMORY,
            "The GPU's memory is full.",
            lines[-2:],
            "use a smaller batch or smaller images, or select nodes with a larger GPU",
        )
    limit = container.memory_limit if container else None
    if lines := _lines(log, _HOST):
        most = f" within its limit of {size(limit)}" if limit else ""
        return Diagnosis(
            Category.OUT_OF_MEMORY,
            f"The code could not get the memory it asked for{most}.",
            lines[-2:],
            "raise memory in the deployment or cluster.training, or use a smaller batch",
        )
    killed = _lines(log[-15:], _KILLED)
    if killed and limit:
        return Diagnosis(
            Category.OUT_OF_MEMORY,
            f"A process of the run was killed, most likely as the container reached its memory limit of {size(limit)}.",
            killed[-2:],
            "raise memory in the deployment or cluster.training; with cgroups of version 1 only a process dies,"
            " not the container",
        )
    return None


def _newest(facts: Facts) -> tuple[Pod | None, Container | None]:
    """Return the newest pod and its last container, where there are any."""
    pod = facts.pods[-1] if facts.pods else None
    return pod, pod.containers[-1] if pod and pod.containers else None


def _system_oom(node: Node | None, at: datetime | None) -> tuple[Event, ...]:
    if node is None or at is None:
        return ()
    return tuple(
        event for event in node.events if event.reason in ("SystemOOM", "OOMKilling") and abs(event.at - at) < NEAR
    )


def _who(facts: Facts, pod: Pod) -> str:
    return f"Rank {pod.rank}" if pod.rank is not None and facts.gang else "The run"


def _lines(log: Iterable[str], *patterns: re.Pattern[str]) -> tuple[str, ...]:
    return tuple(line for line in log if any(pattern.search(line) for pattern in patterns))
