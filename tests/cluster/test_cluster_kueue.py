"""Distributed trainings in a queue of Kueue's: all workers start or none does, and whoever waits is told for what."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from threading import Thread
from typing import Any

import pytest
from cluster_gangs import NEEDED, Gangs, Seen, StopError, until
from lightkube import Client
from lightkube.generic_resource import create_global_resource, create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Namespace, Pod
from lightkube.types import PatchType

from configs.cluster import Cluster
from configs.ddp import Kueue
from configs.problems import UserError
from infra.kubernetes.client import connect
from infra.kubernetes.diagnosis.causes import diagnose
from infra.kubernetes.diagnosis.evidence import facts_of
from infra.kubernetes.diagnosis.record import Category
from infra.kubernetes.diagnosis.snapshot import read_objects, read_surroundings
from infra.kubernetes.gang.pod import GANG
from infra.kubernetes.kueue import NotInstalledError, has_queue

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
GROUP, VERSION = "kueue.x-k8s.io", "v1beta1"
QUEUE = "team"
CPU, MEMORY = "1500m", "6Gi"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A namespace with a queue that has room for three toys of half a processor."""
    if lacking := [name for name in NEEDED if name not in os.environ]:
        pytest.skip(f"not set: {', '.join(lacking)} (see tests/cluster/cluster_gangs.py)")
    name = f"mlops-kueue-{uuid.uuid4().hex[:8]}"
    client = connect(Cluster(namespace=name))
    try:
        has_queue(client, QUEUE)
    except NotInstalledError:
        pytest.skip("the cluster has no Kueue")
    client.create(Namespace(metadata=ObjectMeta(name=name)))
    flavors = create_global_resource(GROUP, VERSION, "ResourceFlavor", "resourceflavors")
    whole = create_global_resource(GROUP, VERSION, "ClusterQueue", "clusterqueues")
    local = create_namespaced_resource(GROUP, VERSION, "LocalQueue", "localqueues")
    quotas = [{"name": "cpu", "nominalQuota": CPU}, {"name": "memory", "nominalQuota": MEMORY}]
    groups = [{"coveredResources": ["cpu", "memory"], "flavors": [{"name": name, "resources": quotas}]}]
    client.create(flavors(metadata=ObjectMeta(name=name)))
    client.create(whole(metadata=ObjectMeta(name=name), spec={"namespaceSelector": {}, "resourceGroups": groups}))
    client.create(local(metadata=ObjectMeta(name=QUEUE, namespace=name), spec={"clusterQueue": name}))
    yield client
    client.delete(Namespace, name)
    client.delete(whole, name)
    client.delete(flavors, name)


@pytest.fixture(scope="module")
def gangs(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Gangs:
    return Gangs(client, tmp_path_factory.mktemp("home"))


def queued(gangs: Gangs, *arguments: str, queue: str = QUEUE, **changed: Any) -> Any:
    return gangs.toy(*arguments, scheduler=Kueue(kind="kueue", queue=queue), **changed)


def pods(gangs: Gangs, name: str) -> list[Pod]:
    return list(gangs.client.list(Pod, labels={GANG: name}))


def workloads(client: Client) -> list[str]:
    kind = create_namespaced_resource(GROUP, VERSION, "Workload", "workloads")
    return [item.metadata.name for item in client.list(kind)]


def told(gangs: Gangs, run: str) -> tuple[Category, str]:
    namespace = str(gangs.client.namespace)
    seen = read_surroundings(gangs.client, namespace, read_objects(gangs.client, namespace))
    found = diagnose(facts_of(seen, run, datetime.now(UTC)))
    assert found is not None
    return found.category, found.what


def test_a_gang_waits_until_all_its_workers_have_room(gangs: Gangs) -> None:
    first, seen = queued(gangs, "--steps", "30", "--pause", "0.5"), Seen()
    second, waiting = queued(gangs, "--steps", "30"), Seen()
    launcher = gangs.launcher()
    outcomes = []
    launcher.launch(first)
    follower = Thread(target=lambda: outcomes.append(launcher.follow(first, seen.watch())))
    follower.start()
    until(lambda: len(seen.epochs) > 2)
    # One worker of the second would have room, both have not: none of them starts.
    launcher.launch(second)
    sooner: list[Any] = []

    def look() -> None:
        sooner.append((len(pods(gangs, second.name)), told(gangs, second.flow_run_id)))

    until(lambda: "insufficient" in str(told(gangs, second.flow_run_id)))
    look()
    outcome = launcher.follow(second, waiting.watch())
    follower.join(300)
    assert sooner[0][0] == 0, "no worker of a gang that waits has a pod"
    category, what = sooner[0][1]
    assert category is Category.QUEUED
    assert what.startswith(f"The 2 workers of {second.name} wait in queue {QUEUE}: insufficient unused quota for cpu")
    assert any(note.startswith(f"waits in queue {QUEUE}: ") and "insufficient" in note for note in waiting.notes)
    assert [outcome.failure, outcomes[0].failure] == [None, None]
    learned = [json.loads(gangs.output(gang, "weights.json")) for gang in (first, second)]
    assert learned[0] == pytest.approx(learned[1], abs=1e-12)
    for gang in (first, second):
        launcher.remove(gang)
        assert gangs.left(gang) == []
    until(lambda: workloads(gangs.client) == [], 60)


def test_a_gang_that_its_queue_can_never_let_go_ends_with_the_reason(gangs: Gangs) -> None:
    gang, seen = queued(gangs, cpu=1.0, below_least_s=15), Seen()
    launcher = gangs.launcher()
    launcher.launch(gang)
    until(lambda: "maximum capacity" in str(told(gangs, gang.flow_run_id)), 60)
    outcome = launcher.follow(gang, seen.watch())
    assert outcome.failure is not None
    said = str(outcome.failure)
    assert f"could not start for 15 s: it waits in queue {QUEUE}: " in said
    assert "maximum capacity (1500m)" in said
    assert "quota raised" in said
    assert not pods(gangs, gang.name)
    launcher.remove(gang)
    assert gangs.left(gang) == []


def test_cancel_takes_a_gang_that_waits_out_of_the_queue(gangs: Gangs) -> None:
    gang, seen = queued(gangs, cpu=1.0), Seen()
    launcher = gangs.launcher()
    launcher.launch(gang)
    until(lambda: len(workloads(gangs.client)) == 1, 60)
    seen.stop = True
    with pytest.raises(StopError):
        launcher.follow(gang, seen.watch())
    launcher.remove(gang)
    assert gangs.left(gang) == []
    until(lambda: workloads(gangs.client) == [], 60)


def test_a_gang_put_back_into_its_queue_goes_on_from_its_checkpoint(gangs: Gangs) -> None:
    gang, seen = queued(gangs, "--steps", "40", "--pause", "0.5"), Seen()
    kind = create_namespaced_resource(GROUP, VERSION, "Workload", "workloads")

    def hold(active: bool) -> None:
        (name,) = workloads(gangs.client)
        gangs.client.patch(kind, name, {"spec": {"active": active}}, patch_type=PatchType.MERGE)

    def back() -> None:
        hold(False)
        until(lambda: bool(gangs.client.get(Job, gang.name).spec.suspend), 60)
        until(lambda: not pods(gangs, gang.name), 90)
        hold(True)

    seen.do(after=6, then=back)
    outcome = gangs.run(gang, seen)
    assert outcome.failure is None
    assert seen.epochs == [*range(1, 41)], "no step is trained or told twice"
    gangs.launcher().remove(gang)
    assert gangs.left(gang) == []


def test_a_queue_that_is_not_there_is_told_before_anything_is_made(gangs: Gangs) -> None:
    gang = replace(queued(gangs), scheduler=Kueue(kind="kueue", queue="nobody"))
    with pytest.raises(UserError, match=r"scheduler\.queue: namespace \S+ has no LocalQueue nobody"):
        gangs.launcher().launch(gang)
    assert gangs.left(gang) == []
