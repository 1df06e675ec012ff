"""The objects of the cluster that concern the runs of a namespace, as the API gives them, read with few requests.

Values of environment variables and the contents of Secrets and ConfigMaps are never kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from infra.kubernetes.diagnosis.masking import clean_line
from infra.kubernetes.diagnosis.quantities import pod_requests
from infra.kubernetes.gang.pod import FLOW_RUN as GANG_RUN
from infra.kubernetes.kueue import QUEUE, NotInstalledError, read_waits
from infra.kubernetes.manifests import RUN_LABEL
from infra.kubernetes.objects import has

if TYPE_CHECKING:
    from lightkube import Client

Object = dict[str, Any]

_NO_LOG = re.compile(r"failed to try resolving symlinks|unable to retrieve container logs")
"""What the kubelet answers in the place of a log that is gone."""
TAIL = 40
"""Lines of a container's log that are read."""


@dataclass(frozen=True)
class Snapshot:
    """Objects as the API gives them, as plain JSON values.

    Attributes:
        requested: what the pods of each node reserve (quantities as floats, by node and resource).
        partial: pods of other namespaces may not be read, and are left out of ``requested``.
        nodes: None where nodes may not be read.
        waits: what Kueue says of Jobs that it holds back, by their names.
        logs: last lines of containers, by ``pod/container``.
    """

    jobs: list[Object] = field(default_factory=list)
    pods: list[Object] = field(default_factory=list)
    events: list[Object] = field(default_factory=list)
    nodes: list[Object] | None = None
    requested: dict[str, dict[str, float]] = field(default_factory=dict)
    partial: bool = False
    quotas: list[Object] = field(default_factory=list)
    claims: list[Object] = field(default_factory=list)
    waits: dict[str, str] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=dict)


def read_objects(client: Client, namespace: str) -> Snapshot:
    """Read the Jobs and pods of all runs and gangs in ``namespace``: two requests.

    Raises:
        httpx2.HTTPError: the API is away or refuses.
    """
    from lightkube.resources.batch_v1 import Job
    from lightkube.resources.core_v1 import Pod

    ours = _labelled(RUN_LABEL, GANG_RUN)
    return Snapshot(
        jobs=_dicts(client.list(Job, namespace=namespace), ours),
        pods=_dicts(client.list(Pod, namespace=namespace), ours),
    )


def read_surroundings(client: Client, namespace: str, seen: Snapshot, at_work: Collection[str] = ()) -> Snapshot:
    """Add to ``seen`` what tells why a run is stuck: events, nodes, quotas, claims, and the ends of logs.

    What may not be read is left out.

    Args:
        at_work: ids of runs that say themselves how they are: their pods' logs are read only after their end.

    Raises:
        httpx2.HTTPError: the API is away.
    """
    from lightkube.resources.core_v1 import Event, Node, PersistentVolumeClaim, Pod, ResourceQuota

    nodes = _allowed(lambda: _dicts(client.list(Node)))
    everywhere = _allowed(lambda: _dicts(client.list(Pod, namespace="*"))) if nodes else []
    pods = everywhere if everywhere is not None else _dicts(client.list(Pod, namespace=namespace))
    node_events = _allowed(lambda: _dicts(client.list(Event, namespace="default"), _about("Node"))) or []
    held = any(queue_of(job) for job in seen.jobs)
    return Snapshot(
        jobs=seen.jobs,
        pods=seen.pods,
        events=(_allowed(lambda: _dicts(client.list(Event, namespace=namespace))) or []) + node_events,
        nodes=nodes,
        requested=requested_by_node(pods),
        partial=everywhere is None,
        quotas=_allowed(lambda: _dicts(client.list(ResourceQuota, namespace=namespace))) or [],
        claims=_allowed(lambda: _dicts(client.list(PersistentVolumeClaim, namespace=namespace))) or [],
        waits=_waits(client, namespace) if held else {},
        logs=_logs(client, namespace, seen.pods, nodes or [], at_work),
    )


def requested_by_node(pods: Iterable[Object]) -> dict[str, dict[str, float]]:
    """Sum what pods reserve, by node and resource; those that have ended reserve nothing."""
    sums: dict[str, dict[str, float]] = {}
    for pod in pods:
        node = pod.get("spec", {}).get("nodeName")
        if not node or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            continue
        total = sums.setdefault(node, {"pods": 0.0})
        total["pods"] += 1
        for name, value in pod_requests(pod["spec"]).items():
            total[name] = total.get(name, 0.0) + value
    return sums


def queue_of(job: Object) -> str:
    """Return the queue of Kueue's that holds a Job back, empty where none does."""
    queue = (job["metadata"].get("labels") or {}).get(QUEUE, "")
    return str(queue) if job.get("spec", {}).get("suspend") else ""


def _waits(client: Client, namespace: str) -> dict[str, str]:
    try:
        return {job: clean_line(said) for job, said in (_allowed(lambda: read_waits(client, namespace)) or {}).items()}
    except NotInstalledError:
        return {}


def _logs(
    client: Client, namespace: str, pods: Iterable[Object], nodes: Iterable[Object], at_work: Collection[str]
) -> dict[str, list[str]]:
    """Read the last lines of what has run.

    A log that is gone is no error. A node that does not answer is asked once: the API server waits for its kubelet,
    and that is no sign of the API being away.
    """
    import httpx2

    silent = {node["metadata"]["name"] for node in nodes if not has(node, "Ready")}
    logs: dict[str, list[str]] = {}
    for pod in pods:
        name, node = pod["metadata"]["name"], pod["spec"].get("nodeName")
        quiet = (pod["metadata"].get("labels") or {}).get(RUN_LABEL) in at_work
        for status in pod.get("status", {}).get("containerStatuses") or []:
            state = set(status.get("state") or {})
            if node in silent or not state & ({"terminated"} if quiet else {"running", "terminated"}):
                continue
            read = partial(_tail, client, namespace, name, status["name"])
            try:
                lines = _allowed(read)
            except httpx2.TransportError:
                silent.add(node)
                continue
            if lines:
                logs[f"{name}/{status['name']}"] = lines
    return logs


def _tail(client: Client, namespace: str, pod: str, container: str) -> list[str]:
    lines = client.log(pod, namespace=namespace, container=container, tail_lines=TAIL)
    return [kept for line in lines if (kept := clean_line(line)) and not _NO_LOG.match(kept)]


def _allowed(read: Callable[[], Any]) -> Any:
    """Return what ``read`` returns, None where the API refuses or has it not; an API that is away stays an error."""
    import httpx2

    try:
        return read()
    except httpx2.HTTPStatusError as error:
        if error.response.status_code in (400, 401, 403, 404, 405) or error.response.status_code == 500:
            return None  # 400 and 500: a log whose container is gone, or whose node does not answer
        raise


def _labelled(*labels: str) -> Callable[[Object], bool]:
    return lambda item: bool(set(labels) & set(item["metadata"].get("labels") or {}))


def _about(kind: str) -> Callable[[Object], bool]:
    return lambda item: bool(item.get("involvedObject", {}).get("kind") == kind)


def _dicts(objects: Iterable[Any], wanted: Callable[[Object], bool] = lambda item: True) -> list[Object]:
    return [_without_values(item) for found in objects if wanted(item := found.to_dict())]


def _without_values(item: Object) -> Object:
    """Drop the values of variables, which may be secret, and what nobody reads."""
    item.get("metadata", {}).pop("managedFields", None)
    item.get("metadata", {}).pop("annotations", None)
    specs: list[Mapping[str, Any]] = [item.get("spec") or {}]
    template = specs[0].get("template")
    if isinstance(template, dict):
        template.get("metadata", {}).pop("annotations", None)
        specs.append(template.get("spec") or {})
    for spec in specs:
        for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
            for key in ("env", "command", "args", "lifecycle"):
                container.pop(key, None)
    return item
