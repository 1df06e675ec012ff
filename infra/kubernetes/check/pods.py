"""The pods that manifests make, and what contradicts itself in one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from configs.problems import Problem
from infra.kubernetes.manifests import Manifest, title

_KINDS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "Pod")


@dataclass(frozen=True)
class Pods:
    """The pods of a manifest.

    Attributes:
        where: the manifest, as people are told of it.
        spec: of the pod.
        copies: how many there are at a time.
    """

    where: str
    kind: str
    labels: Mapping[str, str]
    selector: Mapping[str, str] | None
    spec: Mapping[str, Any]
    copies: int

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        """Return all containers, those of the beginning first."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]


def pods_of(item: Manifest) -> Pods | None:
    """Return the pods that a manifest makes, None for other kinds."""
    kind = item["kind"]
    if kind not in _KINDS:
        return None
    where = title(item)
    if kind == "Pod":
        return Pods(where, kind, item["metadata"].get("labels", {}), None, item["spec"], 1)
    spec = item["spec"]
    template = spec["template"]
    copies = spec.get("parallelism", 1) if kind == "Job" else spec.get("replicas", 1)
    selector = spec.get("selector", {}).get("matchLabels")
    return Pods(where, kind, template.get("metadata", {}).get("labels", {}), selector, template["spec"], copies)


def fits(selector: Mapping[str, str], found: Mapping[str, str]) -> bool:
    """Whether labels are what a selector asks for; an empty one selects nothing."""
    return bool(selector) and all(found.get(key) == value for key, value in selector.items())


def contradictions(pods: Pods) -> Iterator[Problem]:
    """Yield what is wrong within a pod's template: labels, restarts, images, mounts, rights, amounts, probes."""
    yield from _labels(pods)
    yield from _restarts(pods)
    yield from _containers(pods)


def _labels(pods: Pods) -> Iterator[Problem]:
    if pods.selector is not None and not fits(pods.selector, pods.labels):
        yield Problem(pods.where, "selects other labels than its pods have", f"give the pods {dict(pods.selector)}")


def _restarts(pods: Pods) -> Iterator[Problem]:
    policy = pods.spec.get("restartPolicy", "Always")
    if pods.kind == "Job" and policy not in ("Never", "OnFailure"):
        yield Problem(pods.where, f"has restartPolicy {policy}", "a Job's pods end: Never or OnFailure")
    if pods.kind in ("Deployment", "StatefulSet", "DaemonSet") and policy != "Always":
        yield Problem(pods.where, f"has restartPolicy {policy}", "Always: its pods are to run")


def _containers(pods: Pods) -> Iterator[Problem]:
    volumes = {volume["name"] for volume in pods.spec.get("volumes", ())}
    for container in pods.containers:
        where = f"{pods.where}, container {container['name']}"
        name, _, digest = container["image"].partition("@")
        tag = name.rpartition("/")[2].partition(":")[2]
        if not digest and tag in ("", "latest"):
            yield Problem(where, f"has the image {container['image']}", "name a version or a digest")
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in volumes:
                yield Problem(where, f"mounts {mount['name']}, which is no volume of its pod", "add the volume")
        security = {**pods.spec.get("securityContext", {}), **container.get("securityContext", {})}
        if security.get("privileged") or security.get("allowPrivilegeEscalation", True):
            yield Problem(where, "may get more rights than it starts with", "allowPrivilegeEscalation: false")
        for kind in ("requests", "limits"):
            if not {"cpu", "memory"} <= container.get("resources", {}).get(kind, {}).keys():
                yield Problem(where, f"names no {kind} of cpu and memory", "name both")
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", ()) if "name" in port}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            port = container.get(probe, {}).get("httpGet", {}).get("port")
            if port is not None and port not in (*ports, *ports.values()):
                yield Problem(where, f"is probed at port {port}, which it does not name", "probe a port of its own")
