"""A Deployment of one pod a worker, with room for none elsewhere, and who of a cluster is away while it changes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from kept import image
from kube_site import KubeSite, eventually
from lab import LabError

NAME = "spread"


@dataclass
class Watched:
    """What was seen, by the second.

    Attributes:
        away: the workers that were closed or not ready, as often as that changed.
        fewest: available pods of the Deployment.
    """

    away: list[tuple[float, frozenset[str]]] = field(default_factory=list)
    fewest: int = 99

    def see(self, at: float, away: frozenset[str], available: int) -> None:
        """Note what is so now."""
        self.fewest = min(self.fewest, available)
        if not self.away or self.away[-1][1] != away:
            self.away.append((at, away))
            print(f"after {at:.0f} s away: {', '.join(sorted(away)) or 'none'}; {available} of {NAME} available")


def spread(site: KubeSite, replicas: int) -> None:
    """Apply it, and wait until all its pods run; its budget lets one of them go at a time."""
    selector = {"matchLabels": {"app": NAME}}
    apart = {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}
    pod = {
        "terminationGracePeriodSeconds": 1,
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}},
        "containers": [{"name": "main", "image": image(site), "command": ["/bin/sh", "-c", "sleep 100000"]}],
    }
    template = {"metadata": {"labels": {"app": NAME}}, "spec": pod}
    for api, kind, spec in (
        ("apps/v1", "Deployment", {"replicas": replicas, "selector": selector, "template": template}),
        ("policy/v1", "PodDisruptionBudget", {"maxUnavailable": 1, "selector": selector}),
    ):
        described = {"apiVersion": api, "kind": kind, "metadata": {"name": NAME}, "spec": spec}
        site.kubectl("apply", given=json.dumps(described))
    eventually(lambda: available(site) == replicas, 300)


def available(site: KubeSite) -> int:
    """How many of its pods are ready."""
    path = "jsonpath={.status.availableReplicas}"
    return int(site.kubectl("get", "deployment", NAME, "-o", path) or 0)


@contextmanager
def watching(site: KubeSite) -> Iterator[Watched]:
    """Yield what is seen while the block runs; where the API server does not answer, nothing is."""
    seen, ended, began = Watched(), threading.Event(), time.monotonic()

    def watch() -> None:
        while not ended.wait(2):
            with suppress(LabError, ValueError):  # it may end in the middle of an answer
                seen.see(time.monotonic() - began, _away(site), available(site))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def _away(site: KubeSite) -> frozenset[str]:
    return frozenset(
        item["metadata"]["name"]
        for item in site.objects("nodes")
        if item["metadata"]["name"] != "master"
        and (
            item["spec"].get("unschedulable")
            or not any(row["type"] == "Ready" and row["status"] == "True" for row in item["status"]["conditions"])
        )
    )
