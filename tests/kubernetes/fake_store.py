"""The objects of a Kubernetes API, with what its clients rely on: resource versions, a history to watch, selectors."""

from __future__ import annotations

import asyncio
import copy
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Manifest = dict[str, Any]
Key = tuple[str, str, str]
"""Plural, namespace ("" for what is in none), name."""


class RefusedError(Exception):
    """What the API refuses, as the ``Status`` that a client gets."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason

    def status(self) -> Manifest:
        return {
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "code": self.code, "reason": self.reason, "message": str(self),
        }  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One entry of the history."""

    version: int
    kind: str
    plural: str
    manifest: Manifest


@dataclass
class Store:
    """All objects; used from one event loop."""

    objects: dict[Key, Manifest] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    version: int = 100
    forgotten: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def create(self, plural: str, namespace: str, manifest: Manifest) -> Manifest:
        manifest = copy.deepcopy(manifest)
        metadata = manifest.setdefault("metadata", {})
        if not metadata.get("name"):
            metadata["name"] = f"{metadata['generateName']}{uuid.uuid4().hex[:5]}"
        key = (plural, namespace, metadata["name"])
        if key in self.objects:
            raise RefusedError(409, "AlreadyExists", f'{plural} "{metadata["name"]}" already exists')
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
        if namespace:
            metadata["namespace"] = namespace
        return self._put("ADDED", key, manifest)

    def get(self, key: Key) -> Manifest:
        if key not in self.objects:
            raise RefusedError(404, "NotFound", f'{key[0]} "{key[2]}" not found')
        return self.objects[key]

    def patch(self, key: Key, change: Mapping[str, Any]) -> Manifest:
        """Merge ``change`` into an object (RFC 7386); the last finalizer's end removes what was being deleted."""
        manifest = merged(self.get(key), change)
        metadata = manifest["metadata"]
        if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            return self.remove(key)
        return self._put("MODIFIED", key, manifest)

    def remove(self, key: Key) -> Manifest:
        return self._put("DELETED", key, copy.deepcopy(self.get(key)))

    def list(self, plural: str, namespace: str, labels: str, fields: str) -> list[Manifest]:
        return [
            manifest
            for (kind, place, _), manifest in self.objects.items()
            if kind == plural and namespace in ("", place) and selected(manifest, labels, fields)
        ]

    def since(self, version: int, plural: str, namespace: str, labels: str, fields: str) -> Iterator[Change]:
        """The changes after ``version``.

        Raises:
            RefusedError: 410, they are not remembered that far back.
        """
        if version < self.forgotten:
            raise RefusedError(410, "Expired", f"too old resource version: {version} ({self.forgotten})")
        for change in self.history:
            place = change.manifest["metadata"].get("namespace", "")
            meant = change.version > version and change.plural == plural and namespace in ("", place)
            if meant and selected(change.manifest, labels, fields):
                yield change

    def forget(self) -> None:
        """Compact the history, as etcd does every five minutes."""
        self.history.clear()
        self.forgotten = self.version

    def _put(self, kind: str, key: Key, manifest: Manifest) -> Manifest:
        self.version += 1
        manifest["metadata"]["resourceVersion"] = str(self.version)
        if kind == "DELETED":
            del self.objects[key]
        else:
            self.objects[key] = manifest
        self.history.append(Change(self.version, kind, key[0], copy.deepcopy(manifest)))
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()
        return manifest


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def merged(base: Any, change: Any) -> Any:
    """RFC 7386: maps are merged, None removes, everything else replaces."""
    if not isinstance(change, Mapping):
        return copy.deepcopy(change)
    result = dict(base) if isinstance(base, Mapping) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def selected(manifest: Manifest, labels: str, fields: str) -> bool:
    found = manifest["metadata"].get("labels") or {}
    parts = re.split(r",(?![^(]*\))", labels) if labels else []
    return all(_label_fits(found, part.strip()) for part in parts) and all(
        str(_value(manifest, name)) == value for name, _, value in (item.partition("=") for item in _split(fields))
    )


def _label_fits(labels: Mapping[str, str], part: str) -> bool:
    if among := re.fullmatch(r"(\S+) (not)?in \((.*)\)", part):
        inside = labels.get(among[1]) in [value.strip() for value in among[3].split(",")]
        return inside is not bool(among[2])
    if part.startswith("!"):
        return part[1:] not in labels
    if "!=" in part:
        name, _, value = part.partition("!=")
        return labels.get(name) != value
    if "=" in part:
        name, _, value = part.replace("==", "=").partition("=")
        return labels.get(name) == value
    return part in labels


def _split(fields: str) -> list[str]:
    return [item.replace("==", "=") for item in fields.split(",")] if fields else []


def _value(manifest: Mapping[str, Any], path: str) -> Any:
    value: Any = manifest
    for name in path.split("."):
        value = value.get(name, "") if isinstance(value, Mapping) else ""
    return value
