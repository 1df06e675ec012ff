"""What is known of a run on the cluster: pure data, made from the objects of the API by ``evidence``.

Quantities are floats in the resource's base unit: cores, bytes, pieces. Times are UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal


@dataclass(frozen=True)
class Event:
    """What the cluster said of an object; ``at`` is the last time, ``count`` how often it was said."""

    at: datetime
    reason: str
    message: str
    count: int = 1

    def __str__(self) -> str:
        often = f" (x{self.count})" if self.count > 1 else ""
        return f"{self.at:%H:%M:%S} {self.reason}{often}: {self.message}"


@dataclass(frozen=True)
class Condition:
    """A condition of a pod, node or job."""

    status: str
    reason: str
    message: str
    since: datetime | None


@dataclass(frozen=True)
class Ended:
    """How a container ended; ``reason`` is the runtime's (Error, OOMKilled, StartError, ContainerStatusUnknown)."""

    exit_code: int
    reason: str
    message: str
    finished: datetime | None


@dataclass(frozen=True)
class Container:
    """A container: ``waiting`` is the reason for which it does not begin, ``ended`` its last end."""

    name: str
    image: str
    waiting: str = ""
    waiting_message: str = ""
    running: bool = False
    ended: Ended | None = None
    memory_limit: float | None = None
    memory_request: float | None = None
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class Taint:
    """A taint of a node, or a toleration of a pod (then ``key`` may be empty, and ``exists`` ignores the value)."""

    key: str
    value: str = ""
    effect: str = ""
    exists: bool = False

    def __str__(self) -> str:
        return f"{self.key}{f'={self.value}' if self.value else ''}:{self.effect}"


@dataclass(frozen=True)
class Pod:
    """A pod with its events, oldest first.

    Attributes:
        rank: its completion index in a gang.
        requests: what the scheduler reserves for it: the sum of its containers, or the largest init container.
        scheduler: that is to give it a node; empty: Kubernetes' own.
        shm: size limit of its memory volume at /dev/shm; 0 without a limit, None without such a volume.
        deleting: when its end was asked for.
    """

    name: str
    phase: str
    created: datetime
    job: str = ""
    rank: int | None = None
    node: str = ""
    reason: str = ""
    message: str = ""
    deleting: datetime | None = None
    containers: tuple[Container, ...] = ()
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    requests: Mapping[str, float] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Taint, ...] = ()
    priority_class: str = ""
    scheduler: str = ""
    claims: tuple[str, ...] = ()
    shm: float | None = None
    events: tuple[Event, ...] = ()

    def said(self, *reasons: str) -> tuple[Event, ...]:
        """Return its events of these reasons, oldest first."""
        return tuple(event for event in self.events if event.reason in reasons)

    def ends(self) -> Iterator[tuple[Container, Ended]]:
        """Yield its containers that have ended."""
        for container in self.containers:
            if container.ended is not None:
                yield container, container.ended


@dataclass(frozen=True)
class Node:
    """A node; ``requested`` is the sum of what its pods reserve, when ``partial`` only of those of our namespace."""

    name: str
    ready: bool
    allocatable: Mapping[str, float] = field(default_factory=dict)
    requested: Mapping[str, float] = field(default_factory=dict)
    partial: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    cordoned: bool = False
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    events: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Quota:
    """A quota of the namespace: texts as the API writes them, by resource."""

    name: str
    hard: Mapping[str, str]
    used: Mapping[str, str]


@dataclass(frozen=True)
class Claim:
    """A volume claim; ``wanted`` is the size it asks for."""

    name: str
    phase: str
    storage_class: str | None = None
    volume: str = ""
    wanted: str = ""
    events: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Job:
    """A Job: that of the run itself, or of its gang.

    Attributes:
        queue: of Kueue's that holds it back, empty where none does; ``waits``: what Kueue says of that.
    """

    name: str
    created: datetime
    gang: bool = False
    deadline_s: float | None = None
    completions: int = 1
    active: int = 0
    succeeded: int = 0
    failed: Condition | None = None
    queue: str = ""
    waits: str = ""
    events: tuple[Event, ...] = ()


PoolStatus = Literal["ready", "paused", "not ready", "missing"]


@dataclass(frozen=True)
class Run:
    """What Prefect knows of the flow run.

    Attributes:
        kind: state type, as PENDING; ``state`` its name, as Late.
        since: when that state began.
        due: when it was to start.
        log: its last log lines, oldest first.
        waits_for: names of the runs that hold the slots it waits for, with what the limit is.
        workers_seen: when a worker of the pool was heard last; None: never.
    """

    name: str
    kind: str
    state: str
    since: datetime
    message: str = ""
    due: datetime | None = None
    log: tuple[str, ...] = ()
    pool: str = ""
    pool_status: PoolStatus = "ready"
    queue_paused: str = ""
    workers_seen: datetime | None = None
    workers_online: int = 1
    waits_for: tuple[str, ...] = ()
    limit: str = ""


@dataclass(frozen=True)
class Facts:
    """All that is known of one run at ``now``.

    Attributes:
        nodes: None where they may not be read.
        api_error: what the API server said when it was asked; empty when it answered.
    """

    now: datetime
    run: Run | None = None
    jobs: tuple[Job, ...] = ()
    pods: tuple[Pod, ...] = ()
    nodes: tuple[Node, ...] | None = ()
    quotas: tuple[Quota, ...] = ()
    claims: tuple[Claim, ...] = ()
    api_error: str = ""

    def node(self, name: str) -> Node | None:
        """Return the node of that name, None where it is unknown."""
        return next((node for node in self.nodes or () if node.name == name), None)

    @property
    def gang(self) -> Job | None:
        """The Job of the run's gang, if it has one."""
        return next((job for job in self.jobs if job.gang), None)
