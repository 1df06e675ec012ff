"""Makes objects in a namespace of a real cluster, and waits for what is told of them."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import snapshots
from lightkube import ApiError, Client, codecs
from lightkube.types import CascadeType

from infra.kubernetes.diagnosis.causes import diagnose
from infra.kubernetes.diagnosis.evidence import facts_of
from infra.kubernetes.diagnosis.facts import Facts, Run
from infra.kubernetes.diagnosis.record import Category, Diagnosis
from infra.kubernetes.diagnosis.snapshot import read_objects, read_surroundings

LIMIT_S = 90.0


class Watched:
    """A namespace, and the flow run whose troubles are made in it.

    Attributes:
        run: id of the flow run; ``kind`` is the state type that it would have.
    """

    def __init__(self, client: Client, namespace: str) -> None:
        self.client, self.namespace = client, namespace
        self.run = str(uuid4())
        self.kind = "PENDING"
        self._made: list[Any] = []

    def make(self, *manifests: dict[str, Any]) -> None:
        for manifest in manifests:
            item = codecs.from_dict(manifest)
            self.client.create(item, namespace=self.namespace)
            self._made.append(item)

    def facts(self) -> Facts:
        now = datetime.now(UTC)
        run = Run("quiet-owl", self.kind, self.kind.title(), now, pool="kubernetes")
        seen = read_surroundings(self.client, self.namespace, read_objects(self.client, self.namespace))
        self.snapshot = seen
        return facts_of(seen, self.run, now, run)

    def told(self, category: Category, *words: str, limit_s: float = LIMIT_S) -> Diagnosis:
        """Wait for the diagnosis of ``category`` whose sentence has all ``words``; return it."""
        deadline = time.monotonic() + limit_s
        found: Diagnosis | None = None
        while time.monotonic() < deadline:
            found = diagnose(self.facts())
            if found is not None and found.category is category and all(word in found.what for word in words):
                self._save(found)
                return found
            time.sleep(1)
        raise AssertionError(f"not told within {limit_s:.0f} s: {category} {words}; instead: {found and found.text()}")

    def _save(self, found: Diagnosis) -> None:
        folder = os.environ.get("MLOPS_SAVE_FACTS")
        name = os.environ.get("PYTEST_CURRENT_TEST", "").partition("[")[0].rpartition("test_")[2].split(" ")[0]
        if folder:
            kept = snapshots.portable(self.snapshot, self.run, self.kind, self.namespace, found.what)
            snapshots.save(name, kept, Path(folder))

    def close(self) -> None:
        for item in reversed(self._made):
            with contextlib.suppress(ApiError):
                self.client.delete(
                    type(item), item.metadata.name, namespace=self.namespace, cascade=CascadeType.BACKGROUND
                )
        self.client.close()
