"""Makes the facts of one run from the cluster's objects: a pure function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from infra.kubernetes.diagnosis.facts import (
    Claim,
    Condition,
    Container,
    Ended,
    Event,
    Facts,
    Job,
    Node,
    Pod,
    Quota,
    Run,
    Taint,
)
from infra.kubernetes.diagnosis.masking import clean_line
from infra.kubernetes.diagnosis.quantities import amount, pod_requests
from infra.kubernetes.diagnosis.snapshot import Object, Snapshot, queue_of
from infra.kubernetes.gang.pod import FLOW_RUN as GANG_RUN
from infra.kubernetes.manifests import RUN_LABEL

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
Said = Mapping[str, tuple[Event, ...]]


def facts_of(snapshot: Snapshot, run_id: str, now: datetime, run: Run | None = None, job: str | None = None) -> Facts:
    """Return what ``snapshot`` holds of the flow run ``run_id``.

    Args:
        job: of its own Jobs this one; by default the newest, which is that of its last start. Its gangs come with it.
    """
    said = _by_object(snapshot.events)
    own = jobs_of(snapshot, run_id)
    chosen = job if job is not None else own[-1] if own else None
    others = set(own) - {chosen}
    concerned = [item for item in snapshot.jobs if run_id in (_label(item, RUN_LABEL), _label(item, GANG_RUN))]
    jobs = [item for item in concerned if item["metadata"]["name"] not in others]
    pods = [
        pod
        for pod in snapshot.pods
        if run_id in (_label(pod, RUN_LABEL), _label(pod, GANG_RUN)) and _job_of(pod) not in others
    ]
    claims = {name for pod in pods for name in _claims(pod["spec"])}
    nodes = snapshot.nodes
    return Facts(
        now=now,
        run=run,
        jobs=tuple(_job(item, said, snapshot.waits) for item in jobs),
        pods=tuple(_pod(pod, said, snapshot.logs) for pod in sorted(pods, key=_created)),
        nodes=None if nodes is None else tuple(_node(node, said, snapshot) for node in nodes),
        quotas=tuple(_quota(quota) for quota in snapshot.quotas),
        claims=tuple(_claim(claim, said) for claim in snapshot.claims if claim["metadata"]["name"] in claims),
    )


def jobs_of(snapshot: Snapshot, run_id: str) -> list[str]:
    """Return the names of a run's own Jobs, oldest first: one for each start."""
    own = sorted((job for job in snapshot.jobs if _label(job, RUN_LABEL) == run_id), key=_created)
    return [str(job["metadata"]["name"]) for job in own]


def moment(value: Any) -> datetime | None:
    """Return a time of the API, which lightkube may have read already."""
    if not value:
        return None
    found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _label(item: Object, name: str) -> str | None:
    value = (item["metadata"].get("labels") or {}).get(name)
    return None if value is None else str(value)


def _created(item: Object) -> datetime:
    return moment(item["metadata"].get("creationTimestamp")) or LONG_AGO


def _job_of(pod: Object) -> str:
    return _label(pod, "batch.kubernetes.io/job-name") or _label(pod, "job-name") or ""


def _by_object(events: Iterable[Object]) -> Said:
    """Group events by the object that they concern (``Kind/name``), oldest first."""
    found: dict[str, list[Event]] = {}
    for event in events:
        about = event.get("involvedObject") or {}
        series = event.get("series") or {}
        at = (
            moment(series.get("lastObservedTime"))
            or moment(event.get("lastTimestamp"))
            or moment(event.get("eventTime"))
            or moment(event["metadata"].get("creationTimestamp"))
            or LONG_AGO
        )
        count = int(series.get("count") or event.get("count") or 1)
        item = Event(at, event.get("reason") or "", clean_line(event.get("message") or ""), count)
        found.setdefault(f"{about.get('kind')}/{about.get('name')}", []).append(item)
    return {name: tuple(sorted(items, key=lambda item: item.at)) for name, items in found.items()}


def _conditions(status: Mapping[str, Any]) -> dict[str, Condition]:
    return {
        item["type"]: Condition(
            str(item.get("status")),
            item.get("reason") or "",
            clean_line(item.get("message") or ""),
            moment(item.get("lastTransitionTime")),
        )
        for item in status.get("conditions") or ()
    }


def _job(job: Object, said: Said, waits: Mapping[str, str]) -> Job:
    spec, status = job.get("spec") or {}, job.get("status") or {}
    failed = _conditions(status).get("Failed") or _conditions(status).get("FailureTarget")
    name = job["metadata"]["name"]
    return Job(
        name=name,
        created=_created(job),
        gang=_label(job, GANG_RUN) is not None,
        deadline_s=spec.get("activeDeadlineSeconds"),
        completions=int(spec.get("completions") or 1),
        active=int(status.get("active") or 0),
        succeeded=int(status.get("succeeded") or 0),
        failed=failed if failed and failed.status == "True" else None,
        queue=queue_of(job),
        waits=waits.get(name, ""),
        events=said.get(f"Job/{name}", ()),
    )


def _pod(pod: Object, said: Said, logs: Mapping[str, list[str]]) -> Pod:
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    rank = _label(pod, "batch.kubernetes.io/job-completion-index")
    return Pod(
        name=metadata["name"],
        phase=status.get("phase") or "Pending",
        created=_created(pod),
        job=_job_of(pod),
        rank=int(rank) if rank is not None else None,
        node=spec.get("nodeName") or "",
        reason=status.get("reason") or "",
        message=clean_line(status.get("message") or ""),
        deleting=moment(metadata.get("deletionTimestamp")),
        containers=tuple(_containers(metadata["name"], spec, status, logs)),
        conditions=_conditions(status),
        requests=pod_requests(spec),
        node_selector=spec.get("nodeSelector") or {},
        tolerations=tuple(_taint(item) for item in spec.get("tolerations") or ()),
        priority_class=spec.get("priorityClassName") or "",
        scheduler=spec.get("schedulerName") or "",
        claims=tuple(_claims(spec)),
        shm=_shm(spec),
        events=said.get(f"Pod/{metadata['name']}", ()),
    )


def _containers(
    pod: str, spec: Mapping[str, Any], status: Mapping[str, Any], logs: Mapping[str, list[str]]
) -> Iterable[Container]:
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    by_name = {item["name"]: item for item in statuses}
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        found = by_name.get(container["name"]) or {}
        state = found.get("state") or {}
        waiting = state.get("waiting") or {}
        ended = state.get("terminated") or (found.get("lastState") or {}).get("terminated")
        resources = container.get("resources") or {}
        yield Container(
            name=container["name"],
            image=container.get("image") or "",
            waiting=waiting.get("reason") or "",
            waiting_message=clean_line(waiting.get("message") or ""),
            running="running" in state,
            ended=None
            if ended is None
            else Ended(
                int(ended.get("exitCode") or 0),
                ended.get("reason") or "",
                clean_line(ended.get("message") or ""),
                moment(ended.get("finishedAt")),
            ),
            memory_limit=amount((resources.get("limits") or {}).get("memory")),
            memory_request=amount((resources.get("requests") or {}).get("memory")),
            log=tuple(logs.get(f"{pod}/{container['name']}") or ()),
        )


def _claims(spec: Mapping[str, Any]) -> Iterable[str]:
    for volume in spec.get("volumes") or ():
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim:
            yield str(claim)


def _shm(spec: Mapping[str, Any]) -> float | None:
    mounts = {
        mount["name"]
        for container in spec.get("containers") or ()
        for mount in container.get("volumeMounts") or ()
        if mount.get("mountPath", "").rstrip("/") == "/dev/shm"  # noqa: S108
    }
    for volume in spec.get("volumes") or ():
        empty = volume.get("emptyDir")
        if volume["name"] in mounts and empty is not None and empty.get("medium") == "Memory":
            return amount(empty.get("sizeLimit")) or 0.0
    return None


def _taint(item: Mapping[str, Any]) -> Taint:
    return Taint(
        item.get("key") or "", item.get("value") or "", item.get("effect") or "", item.get("operator") == "Exists"
    )


def _node(node: Object, said: Said, snapshot: Snapshot) -> Node:
    name, status, spec = node["metadata"]["name"], node.get("status") or {}, node.get("spec") or {}
    conditions = _conditions(status)
    return Node(
        name=name,
        ready=conditions["Ready"].status == "True" if "Ready" in conditions else False,
        allocatable={key: amount(value) or 0.0 for key, value in (status.get("allocatable") or {}).items()},
        requested=snapshot.requested.get(name, {}),
        partial=snapshot.partial,
        labels=node["metadata"].get("labels") or {},
        taints=tuple(_taint(item) for item in spec.get("taints") or ()),
        cordoned=bool(spec.get("unschedulable")),
        conditions=conditions,
        events=said.get(f"Node/{name}", ()),
    )


def _quota(quota: Object) -> Quota:
    status = quota.get("status") or {}
    return Quota(quota["metadata"]["name"], status.get("hard") or {}, status.get("used") or {})


def _claim(claim: Object, said: Said) -> Claim:
    spec, name = claim.get("spec") or {}, claim["metadata"]["name"]
    return Claim(
        name=name,
        phase=(claim.get("status") or {}).get("phase") or "Pending",
        storage_class=spec.get("storageClassName"),
        volume=spec.get("volumeName") or "",
        wanted=((spec.get("resources") or {}).get("requests") or {}).get("storage") or "",
        events=said.get(f"PersistentVolumeClaim/{name}", ()),
    )
