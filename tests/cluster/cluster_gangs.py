"""Gangs in a namespace of a test's own, and what was seen of them.

``MLOPS_TEST_IMAGE`` names an image with this code that the nodes have, ``MLOPS_TEST_SHARE`` a folder that this machine
and all nodes have in common.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from lightkube import Client
from lightkube.models.core_v1 import ResourceQuotaSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Pod, ResourceQuota, Service

from infra.ddp.launch import Gang, Outcome, Watch
from infra.kubernetes.gang.launch import KubernetesLauncher
from infra.kubernetes.gang.pod import GANG, Space
from infra.kubernetes.gang.workers import INDEX

ROOT = Path(__file__).parents[2]
NEEDED = ("KUBECONFIG", "MLOPS_TEST_IMAGE", "MLOPS_TEST_SHARE")
MINUTES = 9
TOY = "tests/kubernetes/toy.py"


class StopError(Exception):
    """Ends the following, as a cancel does."""


@dataclass
class Seen:
    """What a watch was told."""

    events: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    stop: bool = False
    then: Callable[[], None] | None = None
    after: int = 0

    def watch(self) -> Watch:
        give_up = time.monotonic() + MINUTES * 60

        def tick() -> None:
            if self.stop or time.monotonic() > give_up:
                raise StopError(self.notes)
            if self.then is not None and len(self.events) >= self.after:
                then, self.then = self.then, None
                then()

        return Watch(event=self._event, note=self._note, line=self.lines.append, tick=tick)

    def do(self, after: int, then: Callable[[], None]) -> None:
        """Call ``then`` when ``after`` events have come."""
        self.after, self.then = after, then

    def _event(self, event: Any) -> None:
        self.events.append(dict(event))

    def _note(self, note: str) -> None:
        print(f"{time.strftime('%X')} {note}", flush=True)
        self.notes.append(note)

    @property
    def epochs(self) -> list[int]:
        return [event["epoch"] for event in self.events]


class Gangs:
    """Launches toys in one namespace."""

    def __init__(self, client: Client, home: Path) -> None:
        self.client, self.home = client, home
        self.share = Path(os.environ["MLOPS_TEST_SHARE"]) / str(client.namespace)
        # The pods' user is not ours.
        self.share.mkdir(mode=0o777, exist_ok=True)
        self.share.chmod(0o777)
        self.space = Space(
            namespace=str(client.namespace),
            image=os.environ["MLOPS_TEST_IMAGE"],
            cache=PurePosixPath("/var/lib/mlops/cache"),
            shm=64 << 20,
            ttl_s=600,
            kept=PurePosixPath("/share"),
            share_volumes=({"name": "share", "hostPath": {"path": str(self.share), "type": "Directory"}},),
            share_mounts=({"name": "share", "mountPath": "/share"},),
        )

    def launcher(self, **changed: Any) -> KubernetesLauncher:
        return KubernetesLauncher(self.client, replace(self.space, **changed), self.home, self.share)

    def toy(self, *arguments: str, **changed: Any) -> Gang:
        name = f"toy-{uuid.uuid4().hex[:8]}"
        gang = Gang(
            name=name,
            flow_run_id=str(uuid.uuid4()),
            program=(TOY, *arguments),
            least=2,
            most=2,
            processes=1,
            cpu=0.5,
            memory=1200 << 20,
            gpus=0,
            backend="gloo",
            checkpoints=PurePosixPath("checkpoints") / name,
            max_restarts=3,
            rendezvous_s=300,
            below_least_s=120,
        )
        return replace(gang, **changed)

    def run(self, gang: Gang, seen: Seen) -> Outcome:
        launcher = self.launcher()
        launcher.launch(gang)
        return launcher.follow(gang, seen.watch())

    def pod(self, gang: Gang, index: int) -> str:
        """Return the name of a worker's newest pod."""
        found = self.client.list(Pod, labels={GANG: gang.name, INDEX: str(index)})
        pods = sorted(found, key=lambda pod: pod.metadata.creationTimestamp)
        return str(pods[-1].metadata.name)

    def kill(self, gang: Gang, index: int) -> None:
        """What ``kubectl delete pod --force --grace-period=0`` does."""
        self.client.delete(Pod, self.pod(gang, index), grace_period=0)

    def forbid_pods(self) -> None:
        """Let the namespace have no new pods."""
        quota = ResourceQuota(metadata=ObjectMeta(name="full"), spec=ResourceQuotaSpec(hard={"pods": "0"}))
        self.client.create(quota)

    def allow_pods(self) -> None:
        self.client.delete(ResourceQuota, "full")

    def left(self, gang: Gang) -> list[str]:
        """Return what there is of a gang."""
        return [
            f"{resource.__name__} {found.metadata.name}"
            for resource in (Job, Service, Pod)
            for found in self.client.list(resource, labels={GANG: gang.name})
        ]

    def output(self, gang: Gang, name: str) -> str:
        return (self.share / "gangs" / gang.name / "output" / name).read_text()


def until(holds: Callable[[], bool], seconds: float = 240) -> None:
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.2)
