"""A pod finds no node: which resource is short on which node, or which wish no node fulfils; quotas; claims."""

from __future__ import annotations

import re
from collections.abc import Iterator

from infra.kubernetes.diagnosis.facts import Event, Facts, Node, Pod, Quota, Taint
from infra.kubernetes.diagnosis.quantities import amount, size, told
from infra.kubernetes.diagnosis.record import Category, Diagnosis
from infra.kubernetes.kueue import is_never

GPU = "nvidia.com/gpu"


def refused(facts: Facts) -> Diagnosis | None:
    """Return why the Job's pods are not even made: a quota, a missing class or account, an admission rule."""
    for job in facts.jobs:
        failures = [event for event in job.events if event.reason == "FailedCreate"]
        if not failures or job.active or job.succeeded:
            continue
        last = failures[-1]
        message = last.message
        if "exceeded quota" in message or "failed quota" in message:
            return _quota(facts, last)
        if match := re.search(r"no PriorityClass with name (\S+) was found", message):
            what = f"Priority class {match.group(1)} does not exist in the cluster."
            remedy = "mlops platform apply makes it; or name another in the deployment"
        elif match := re.search(r'(?:error looking up service account \S+/|serviceaccount ")([\w.-]+)', message):
            what = f"Service account {match.group(1)} does not exist in the namespace."
            remedy = "mlops platform apply makes it"
        else:
            what = "The cluster refuses to make the run's pod."
            remedy = "change what the evidence names"
        return Diagnosis(Category.FORBIDDEN, what, (str(last),), remedy)
    return None


def _quota(facts: Facts, event: Event) -> Diagnosis:
    match = re.search(r"exceeded quota: ([\w.-]+), requested: (\S+), used: (\S+), limited: (\S+)", event.message)
    if match is None:
        unsaid = re.search(r"failed quota: ([\w.-]+): must specify (.+?)(?: for|$)", event.message)
        what = "The pod does not say what it needs, and the namespace's quota demands it."
        if unsaid:
            what = f"The pod does not say its {unsaid.group(2)}, and quota {unsaid.group(1)} demands it."
        return Diagnosis(Category.QUOTA, what, (str(event),), "set cpu and memory of the deployment")
    name, asked, used, limited = (match.group(number) for number in range(1, 5))
    quota = next((quota for quota in facts.quotas if quota.name == name), None)
    parts = [
        _share(resource, value, quota, _pairs(used).get(resource), _pairs(limited).get(resource))
        for resource, value in _pairs(asked).items()
    ]
    alone = [resource for resource, value in _pairs(asked).items() if _more(value, _pairs(limited).get(resource))]
    if alone:
        what = f"The run wants more than quota {name} allows at all: {'; '.join(parts)}."
        return Diagnosis(
            Category.QUOTA, what, (str(event),), "ask for less, or raise cluster.quota and mlops platform apply"
        )
    return Diagnosis(
        Category.QUOTA,
        f"Quota {name} is used up: {'; '.join(parts)}.",
        (str(event),),
        "wait for other runs to end; or raise cluster.quota in configs/site.yaml and mlops platform apply",
        passing=True,
    )


def _share(resource: str, asked: str, quota: Quota | None, used: str | None, limit: str | None) -> str:
    used = quota.used.get(resource, used) if quota else used
    limit = quota.hard.get(resource, limit) if quota else limit
    return f"wants {asked} {resource}, {used} of {limit} are in use"


def _pairs(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.rstrip(",").split(",") if "=" in part)


def _more(asked: str, limit: str | None) -> bool:
    first, second = amount(asked), amount(limit)
    return first is not None and second is not None and first > second


def queued(facts: Facts) -> Diagnosis | None:
    """Return what a Job waits for in a queue of Kueue's."""
    for job in facts.jobs:
        if not job.queue:
            continue
        who = f"The {job.completions} workers of {job.name} wait" if job.gang else f"Job {job.name} waits"
        # Kueue names the resource, the flavor and the amounts behind the set of pods that it is about.
        why = job.waits.rpartition("to pod set ")[2].partition(": ")[2] or job.waits or "Kueue has not looked at it yet"
        remedy = "wait for others to end, or have the queue's quota raised"
        if is_never(job.waits):
            remedy = "ask for less, or have the queue's quota raised: it can never give so much"
        evidence = (job.waits,) if job.waits else ()
        return Diagnosis(Category.QUEUED, f"{who} in queue {job.queue}: {why}.", evidence, remedy, passing=True)
    return None


def unbound(facts: Facts) -> Diagnosis | None:
    """Return the volume claim that a pod waits for."""
    for pod in _waiting(facts):
        known = {claim.name: claim for claim in facts.claims}
        said = _last_scheduling(pod)
        for name in pod.claims:
            claim = known.get(name)
            if claim is None and f'persistentvolumeclaim "{name}" not found' in said:
                return Diagnosis(
                    Category.PVC_UNBOUND,
                    f"Volume claim {name} does not exist in the namespace.",
                    _scheduling_evidence(pod),
                    "mlops platform apply makes the share's claim; or name an existing one",
                )
            if claim is not None and claim.phase == "Lost":
                return Diagnosis(
                    Category.PVC_UNBOUND,
                    f"Volume claim {name} has lost its volume {claim.volume}.",
                    tuple(str(event) for event in claim.events[-2:]),
                    f"make volume {claim.volume} again, or delete the claim and mlops platform apply",
                )
            if claim is not None and claim.phase == "Pending":
                kind = f"storage class {claim.storage_class}" if claim.storage_class else "no storage class"
                wish = f"volume {claim.volume}" if claim.volume else f"a volume of {claim.wanted} ({kind})"
                return Diagnosis(
                    Category.PVC_UNBOUND,
                    f"Volume claim {name} is not bound: it wants {wish}, and there is none for it.",
                    tuple(str(event) for event in claim.events[-2:]) or _scheduling_evidence(pod),
                    f"kubectl describe pvc {name}; make such a volume, or correct the claim's class or size",
                    passing=True,
                )
    return None


def unschedulable(facts: Facts) -> Diagnosis | None:
    """Return what a waiting pod wants and no node has."""
    for pod in _waiting(facts):
        condition = pod.conditions.get("PodScheduled")
        if condition is None or condition.status != "False":
            continue
        if condition.reason == "SchedulingGated":
            return Diagnosis(
                Category.QUEUED,
                f"Pod {pod.name} waits for its queue to let it go.",
                (condition.message,),
                "look at the queue: kubectl get workloads",
                passing=True,
            )
        what, remedy = _why(facts, pod, condition.message)
        return Diagnosis(Category.UNSCHEDULABLE, what, _scheduling_evidence(pod), remedy, passing=True)
    return None


def _why(facts: Facts, pod: Pod, message: str) -> tuple[str, str]:
    who = f"rank {pod.rank}" if pod.rank is not None and facts.gang else "the run"
    nodes = facts.nodes or ()
    if not nodes:
        return f"No node takes {who}'s pod.", "kubectl describe the pod: the evidence is the scheduler's reason"
    usable: list[Node] = []
    barred: list[str] = []
    for node in nodes:
        reason = why_barred(pod, node)
        if reason is None:
            usable.append(node)
        else:
            barred.append(f"{node.name} {reason}")
    named = set(re.findall(r"Insufficient ([\w./-]*\w)", message)) | ({"pods"} if "Too many pods" in message else set())
    wanted = {**pod.requests, "pods": 1.0}
    wishes = {name: value for name, value in wanted.items() if name in named or _short_everywhere(name, value, usable)}
    if usable and wishes:
        text = " and ".join(told(name, value) for name, value in wishes.items())
        left = ", ".join(spare(node, name) for node in usable for name in wishes)
        what = f"No node has room: {who} wants {text}; {left}"
        what += f"; {'; '.join(barred)}." if barred else "."
        return what, _more_room(wishes, usable)
    if barred:
        what = f"No node may take {who}'s pod: {'; '.join(barred)}."
        return what, "change cluster.training.node_selector or tolerations in configs/site.yaml, or the nodes' labels"
    return f"No node takes {who}'s pod: {message}", "change what the scheduler names"


def why_barred(pod: Pod, node: Node) -> str | None:
    """Return why the pod may not go to the node, whatever it needs; None when it may."""
    for key, value in pod.node_selector.items():
        if key not in node.labels:
            return f"has no label {key}={value}"
        if node.labels[key] != value:
            return f"has {key}={node.labels[key]}, not {value}"
    if not node.ready:
        return "is not ready"
    if node.cordoned and not _tolerated(Taint("node.kubernetes.io/unschedulable", "", "NoSchedule"), pod.tolerations):
        return "is cordoned"
    for taint in node.taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not _tolerated(taint, pod.tolerations):
            return f"has the taint {taint}"
    return None


def _tolerated(taint: Taint, tolerations: tuple[Taint, ...]) -> bool:
    return any(
        (item.key == taint.key or (not item.key and item.exists))
        and (item.exists or item.value == taint.value)
        and item.effect in ("", taint.effect)
        for item in tolerations
    )


def _short_everywhere(resource: str, wanted: float, nodes: list[Node]) -> bool:
    return all(free(node, resource) < wanted for node in nodes)


def free(node: Node, resource: str) -> float:
    """Return what of a resource is left on a node: allocatable less requested."""
    return node.allocatable.get(resource, 0.0) - node.requested.get(resource, 0.0)


def spare(node: Node, resource: str) -> str:
    """Return in words what of a resource is left on a node."""
    if resource not in node.allocatable:
        return f"{node.name} has no {resource}"
    has = node.allocatable[resource]
    if node.partial:
        return (
            f"{node.name} has {told(resource, has)}, {_number(resource, node.requested.get(resource, 0.0))} of it ours"
        )
    return f"{node.name} has {_number(resource, free(node, resource))} of {_number(resource, has)} free"


def _number(resource: str, value: float) -> str:
    """Return an amount in figures, with the unit of bytes."""
    return size(value) if resource in ("memory", "ephemeral-storage") else f"{value:.3g}"


def _more_room(wishes: dict[str, float], nodes: list[Node]) -> str:
    hopeless = [
        name for name, value in wishes.items() if all(node.allocatable.get(name, 0.0) < value for node in nodes)
    ]
    if GPU in hopeless and not any(GPU in node.allocatable for node in nodes):
        return "no node offers GPUs: install the NVIDIA device plugin, or set gpus to 0"
    if hopeless:
        return f"no node is that large: ask for less {', '.join(hopeless)}, or add a larger node"
    return "wait for other runs to end, ask for less, or add a node"


def _waiting(facts: Facts) -> Iterator[Pod]:
    for pod in facts.pods:
        if pod.phase == "Pending" and not pod.node and pod.deleting is None:
            yield pod


def _last_scheduling(pod: Pod) -> str:
    condition = pod.conditions.get("PodScheduled")
    events = pod.said("FailedScheduling")
    return " ".join([condition.message if condition else "", *(event.message for event in events[-1:])])


def _scheduling_evidence(pod: Pod) -> tuple[str, ...]:
    events = pod.said("FailedScheduling")
    if events:
        return (str(events[-1]),)
    condition = pod.conditions.get("PodScheduled")
    return (condition.message,) if condition else ()
