"""What a schema does not see in a list of manifests: names that nothing bears, selectors that fit nothing, secrets.

The API server takes all of this and then waits for ever.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from configs.problems import Problem
from configs.quantity import parse_quantity

Manifest = Mapping[str, Any]
POD_KINDS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "Pod")
ACCOUNTS = ("default",)
CLASSES = ("system-cluster-critical", "system-node-critical")


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


@dataclass(frozen=True)
class Outside:
    """What is there besides the manifests: Secrets with their keys, and other names by kind."""

    secrets: Mapping[str, Collection[str]] = field(default_factory=dict)
    names: Mapping[str, Collection[str]] = field(default_factory=dict)


def check(manifests: Sequence[Manifest], outside: Outside = Outside()) -> list[Problem]:
    """Return all that is wrong in manifests that are applied together into one namespace; none: an empty list."""
    pods = [found for item in manifests if (found := pods_of(item)) is not None]
    problems = list(_doubles(manifests))
    for item in pods:
        problems += _labels(item)
        problems += _restarts(item)
        problems += _containers(item)
        problems += _references(item, manifests, outside)
    problems += _services(manifests, pods)
    problems += _config_maps(manifests)
    problems += _claims(manifests, outside)
    problems += _bindings(manifests, outside)
    problems += _quotas(manifests, pods)
    return problems


def pods_of(item: Manifest) -> Pods | None:
    """Return the pods that a manifest makes, None for other kinds."""
    kind = item["kind"]
    if kind not in POD_KINDS:
        return None
    where = f"{kind} {item['metadata']['name']}"
    if kind == "Pod":
        return Pods(where, kind, item["metadata"].get("labels", {}), None, item["spec"], 1)
    spec = item["spec"]
    template = spec["template"]
    copies = spec.get("parallelism", 1) if kind == "Job" else spec.get("replicas", 1)
    selector = spec.get("selector", {}).get("matchLabels")
    return Pods(where, kind, template.get("metadata", {}).get("labels", {}), selector, template["spec"], copies)


def _doubles(manifests: Sequence[Manifest]) -> Iterator[Problem]:
    seen = set()
    for item in manifests:
        key = (item["apiVersion"], item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
        if key in seen:
            yield Problem(f"{item['kind']} {item['metadata']['name']}", "is there twice", "keep one")
        seen.add(key)


def _labels(pods: Pods) -> Iterator[Problem]:
    if pods.selector is not None and not _fits(pods.selector, pods.labels):
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


def _references(pods: Pods, manifests: Sequence[Manifest], outside: Outside) -> Iterator[Problem]:
    secrets: dict[str, Collection[str]] = dict(outside.secrets)
    maps: dict[str, Collection[str]] = dict.fromkeys(outside.names.get("ConfigMap", ()), ())
    maps |= {item["metadata"]["name"]: item.get("data", {}) for item in manifests if item["kind"] == "ConfigMap"}
    for field_name, kind, known in (
        ("serviceAccountName", "ServiceAccount", ACCOUNTS),
        ("priorityClassName", "PriorityClass", CLASSES),
    ):
        name = pods.spec.get(field_name)
        if name is not None and name not in (*_names(manifests, outside, kind), *known):
            yield Problem(pods.where, f"names the {kind} {name}, which is not there", "add it")
    for name, keys, kind in _wanted_keys(pods):
        held = secrets if kind == "Secret" else maps
        if name not in held:
            yield Problem(pods.where, f"names the {kind} {name}, which is not there", "add it")
        for key in keys:
            if name in held and key not in held[name]:
                yield Problem(pods.where, f"names the key {key}, which {kind} {name} has not", "add the key")
    claims = _names(manifests, outside, "PersistentVolumeClaim")
    for volume in pods.spec.get("volumes", ()):
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim is not None and claim not in claims:
            yield Problem(pods.where, f"names the PersistentVolumeClaim {claim}, which is not there", "add it")


def _wanted_keys(pods: Pods) -> Iterator[tuple[str, list[str], str]]:
    """Yield name, keys and kind of each Secret and ConfigMap that pods cannot do without."""
    for secret in pods.spec.get("imagePullSecrets", ()):
        yield secret["name"], [".dockerconfigjson"], "Secret"
    for volume in pods.spec.get("volumes", ()):
        for part, field_name, kind in (("secret", "secretName", "Secret"), ("configMap", "name", "ConfigMap")):
            source = volume.get(part)
            if source is not None and not source.get("optional"):
                yield source[field_name], [item["key"] for item in source.get("items", ())], kind
    for container in pods.containers:
        for source in container.get("envFrom", ()):
            for part, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
                if part in source and not source[part].get("optional"):
                    yield source[part]["name"], [], kind
        for variable in container.get("env", ()):
            for part, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                source = variable.get("valueFrom", {}).get(part)
                if source is not None and not source.get("optional"):
                    yield source["name"], [source["key"]], kind


def _services(manifests: Sequence[Manifest], pods: Sequence[Pods]) -> Iterator[Problem]:
    for item in manifests:
        if item["kind"] != "Service":
            continue
        where, spec = f"Service {item['metadata']['name']}", item["spec"]
        chosen = [candidate for candidate in pods if _fits(spec.get("selector", {}), candidate.labels)]
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
            yield Problem(f"StatefulSet {item['metadata']['name']}", "names no Service with clusterIP None", "add it")


def _headless(service: Manifest) -> bool:
    return bool(service["spec"].get("clusterIP") == "None")


def _config_maps(manifests: Sequence[Manifest]) -> Iterator[Problem]:
    secret_name = re.compile(r"password|secret|token|auth_string|api_key|credential", re.IGNORECASE)
    in_address = re.compile(r"://[^/\s:@]+:[^/\s@$]+@")
    for item in manifests:
        where = f"{item['kind']} {item['metadata']['name']}"
        if item["kind"] == "Secret":
            yield Problem(where, "is among the manifests, which are shown and compared", "make Secrets apart")
        if item["kind"] == "ConfigMap":
            for key, value in item.get("data", {}).items():
                is_script = "\n" in value
                if in_address.search(value) or (secret_name.search(key) and not is_script):
                    yield Problem(f"{where}, key {key}", "looks like a secret", "put it into a Secret")
        found = pods_of(item)
        for container in found.containers if found else ():
            for variable in container.get("env", ()):
                name, value = variable["name"], variable.get("value", "")
                plain = secret_name.search(name) and not name.endswith(("_FILE", "_SECRET_NAME", "_SECRET_KEY"))
                if in_address.search(value) or (value and plain):
                    yield Problem(f"{where}, variable {name}", "looks like a secret", "take it from a Secret")


def _claims(manifests: Sequence[Manifest], outside: Outside) -> Iterator[Problem]:
    volumes = {item["metadata"]["name"]: item["spec"] for item in manifests if item["kind"] == "PersistentVolume"}
    for item in manifests:
        if item["kind"] != "PersistentVolumeClaim" or "volumeName" not in item["spec"]:
            continue
        where, spec, name = (
            f"PersistentVolumeClaim {item['metadata']['name']}",
            item["spec"],
            item["spec"]["volumeName"],
        )
        volume = volumes.get(name)
        if volume is None:
            if name not in outside.names.get("PersistentVolume", ()):
                yield Problem(where, f"names the volume {name}, which is not there", "add it")
            continue
        if not set(spec["accessModes"]) <= set(volume["accessModes"]):
            yield Problem(where, f"asks for {spec['accessModes']}, {name} has {volume['accessModes']}", "ask for those")
        asked, held = spec["resources"]["requests"]["storage"], volume["capacity"]["storage"]
        if parse_quantity(asked) > parse_quantity(held):
            yield Problem(where, f"asks for {asked}, {name} has {held}", "ask for no more")
        if spec.get("storageClassName") != volume.get("storageClassName"):
            yield Problem(where, f"has another storage class than {name}", "give both the same")


def _bindings(manifests: Sequence[Manifest], outside: Outside) -> Iterator[Problem]:
    for item in manifests:
        if item["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        where, role = f"{item['kind']} {item['metadata']['name']}", item["roleRef"]
        if role["name"] not in _names(manifests, outside, role["kind"]):
            yield Problem(where, f"names the {role['kind']} {role['name']}, which is not there", "add it")
        for subject in item["subjects"]:
            if subject["kind"] == "ServiceAccount" and subject["name"] not in _names(
                manifests, outside, "ServiceAccount"
            ):
                yield Problem(where, f"names the ServiceAccount {subject['name']}, which is not there", "add it")


def _quotas(manifests: Sequence[Manifest], pods: Sequence[Pods]) -> Iterator[Problem]:
    for item in manifests:
        if item["kind"] != "ResourceQuota":
            continue
        chosen = [candidate for candidate in pods if _in_scope(item["spec"], candidate)]
        for name, hard in item["spec"].get("hard", {}).items():
            asked = _asked(name, chosen)
            if asked > parse_quantity(hard):
                where = f"ResourceQuota {item['metadata']['name']}"
                yield Problem(where, f"allows {hard} of {name}, the manifests ask for {asked}", "allow more")


def _in_scope(spec: Manifest, pods: Pods) -> bool:
    scopes = spec.get("scopeSelector", {}).get("matchExpressions", ())
    return all(pods.spec.get("priorityClassName") in scope["values"] for scope in scopes)


def _asked(name: str, pods: Iterable[Pods]) -> Decimal:
    """Return how much of a quota's resource pods take: the sum of their containers, or the largest at their start."""
    if name == "pods":
        return Decimal(sum(one.copies for one in pods))
    kind, _, resource = name.partition(".")
    total = Decimal(0)
    for one in pods:
        amounts = [
            [parse_quantity(container.get("resources", {}).get(kind, {}).get(resource, "0")) for container in group]
            for group in (one.spec["containers"], one.spec.get("initContainers", ()))
        ]
        total += one.copies * max(sum(amounts[0], Decimal(0)), *amounts[1], Decimal(0))
    return total


def _names(manifests: Sequence[Manifest], outside: Outside, kind: str) -> set[str]:
    return {*outside.names.get(kind, ()), *(item["metadata"]["name"] for item in manifests if item["kind"] == kind)}


def _fits(selector: Mapping[str, str], found: Mapping[str, str]) -> bool:
    return bool(selector) and all(found.get(key) == value for key, value in selector.items())
