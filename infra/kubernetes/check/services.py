"""Services and the pods that they lead to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from configs.problems import Problem
from infra.kubernetes.check.pods import Pods, fits
from infra.kubernetes.manifests import Manifest, title


def services(manifests: Sequence[Manifest], pods: Sequence[Pods]) -> Iterator[Problem]:
    """Yield Services that lead nowhere, and StatefulSets without the Service that they need."""
    for item in manifests:
        if item["kind"] != "Service":
            continue
        where, spec = title(item), item["spec"]
        chosen = [candidate for candidate in pods if fits(spec.get("selector", {}), candidate.labels)]
        if not chosen:
            yield Problem(where, "selects no pods of these manifests", "select the labels of a pod template")
        for port in spec.get("ports", ()):
            target = port.get("targetPort", port["port"])
            for candidate in chosen:
                held = [held for container in candidate.containers for held in container.get("ports", ())]
                if not any(target in (one["containerPort"], one.get("name")) for one in held):
                    yield Problem(where, f"leads to port {target}, which {candidate.where} has not", "name its port")
    headless = {one["metadata"]["name"] for one in manifests if one["kind"] == "Service" and _headless(one)}
    for item in manifests:
        if item["kind"] == "StatefulSet" and item["spec"]["serviceName"] not in headless:
            yield Problem(title(item), "names no Service with clusterIP None", "add it")


def _headless(service: Manifest) -> bool:
    return bool(service["spec"].get("clusterIP") == "None")
