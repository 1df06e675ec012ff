"""Names that nothing bears, in pods, claims and bindings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from configs.problems import Problem
from configs.quantity import parse_quantity
from infra.kubernetes.check.pods import Pods
from infra.kubernetes.manifests import Manifest, title

_ACCOUNTS = ("default",)
_CLASSES = ("system-cluster-critical", "system-node-critical")


@dataclass(frozen=True)
class Outside:
    """What is there besides the manifests: Secrets with their keys, and other names by kind."""

    secrets: Mapping[str, Collection[str]] = field(default_factory=dict)
    names: Mapping[str, Collection[str]] = field(default_factory=dict)


def references(pods: Pods, manifests: Sequence[Manifest], outside: Outside) -> Iterator[Problem]:
    """Yield what pods name and nobody bears: accounts, classes, claims, Secrets and ConfigMaps with their keys."""
    secrets: dict[str, Collection[str]] = dict(outside.secrets)
    maps: dict[str, Collection[str]] = dict.fromkeys(outside.names.get("ConfigMap", ()), ())
    maps |= {item["metadata"]["name"]: item.get("data", {}) for item in manifests if item["kind"] == "ConfigMap"}
    for field_name, kind, known in (
        ("serviceAccountName", "ServiceAccount", _ACCOUNTS),
        ("priorityClassName", "PriorityClass", _CLASSES),
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


def claims(manifests: Sequence[Manifest], outside: Outside) -> Iterator[Problem]:
    """Yield claims of a volume that is not there, or is not as they ask."""
    volumes = {item["metadata"]["name"]: item["spec"] for item in manifests if item["kind"] == "PersistentVolume"}
    for item in manifests:
        if item["kind"] != "PersistentVolumeClaim" or "volumeName" not in item["spec"]:
            continue
        where, spec = title(item), item["spec"]
        name = spec["volumeName"]
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


def bindings(manifests: Sequence[Manifest], outside: Outside) -> Iterator[Problem]:
    """Yield bindings of a role, or to an account, that is not there."""
    for item in manifests:
        if item["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        where, role = title(item), item["roleRef"]
        if role["name"] not in _names(manifests, outside, role["kind"]):
            yield Problem(where, f"names the {role['kind']} {role['name']}, which is not there", "add it")
        for subject in item["subjects"]:
            if subject["kind"] == "ServiceAccount" and subject["name"] not in _names(
                manifests, outside, "ServiceAccount"
            ):
                yield Problem(where, f"names the ServiceAccount {subject['name']}, which is not there", "add it")


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


def _names(manifests: Sequence[Manifest], outside: Outside, kind: str) -> set[str]:
    return {*outside.names.get(kind, ()), *(item["metadata"]["name"] for item in manifests if item["kind"] == kind)}
