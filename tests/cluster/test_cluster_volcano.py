"""Distributed trainings placed by Volcano: all workers are given nodes at once, or none is, and the reason is told."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from threading import Thread
from typing import Any

import httpx2
import pytest
from cluster_gangs import NEEDED, Gangs, Seen, StopError, until
from lightkube import Client
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace, Node, Pod

from configs.cluster import Cluster
from configs.ddp import Volcano
from configs.quantity import parse_quantity
from infra.kubernetes.client import connect
from infra.kubernetes.diagnosis.causes import diagnose
from infra.kubernetes.diagnosis.evidence import facts_of
from infra.kubernetes.diagnosis.record import Category
from infra.kubernetes.diagnosis.snapshot import read_objects, read_surroundings
from infra.kubernetes.gang.pod import GANG

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
GROUPS = create_namespaced_resource("scheduling.volcano.sh", "v1beta1", "PodGroup", "podgroups")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    if lacking := [name for name in NEEDED if name not in os.environ]:
        pytest.skip(f"not set: {', '.join(lacking)} (see tests/cluster/cluster_gangs.py)")
    name = f"mlops-volcano-{uuid.uuid4().hex[:8]}"
    client = connect(Cluster(namespace=name))
    try:
        list(client.list(GROUPS))
    except httpx2.HTTPStatusError:
        pytest.skip("the cluster has no Volcano")
    client.create(Namespace(metadata=ObjectMeta(name=name)))
    yield client
    client.delete(Namespace, name)


@pytest.fixture(scope="module")
def gangs(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Gangs:
    return Gangs(client, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def most(client: Client) -> float:
    """More than half of what the largest of two nodes has: one such worker fits on a node, two do not."""
    sizes = sorted(float(parse_quantity(str(node.status.allocatable["cpu"]))) for node in client.list(Node))
    if len(sizes) != 2:
        pytest.skip(f"needs a cluster of two nodes, this one has {len(sizes)}")
    return round(sizes[1] * 0.6, 1)


def placed(gangs: Gangs, *arguments: str, **changed: Any) -> Any:
    return gangs.toy(*arguments, scheduler=Volcano(kind="volcano"), **changed)


def nodes(gangs: Gangs, name: str) -> list[str | None]:
    return [pod.spec.nodeName for pod in gangs.client.list(Pod, labels={GANG: name})]


def told(gangs: Gangs, run: str) -> tuple[Category, str] | None:
    namespace = str(gangs.client.namespace)
    seen = read_surroundings(gangs.client, namespace, read_objects(gangs.client, namespace))
    found = diagnose(facts_of(seen, run, datetime.now(UTC)))
    return (found.category, found.what) if found else None


def test_a_gang_is_placed_when_all_its_workers_have_room(gangs: Gangs, most: float) -> None:
    first, seen = placed(gangs, "--steps", "40", "--pause", "0.5", least=1, most=1, cpu=most), Seen()
    second, waiting = placed(gangs, "--steps", "40", cpu=most, below_least_s=600), Seen()
    launcher = gangs.launcher()
    outcomes = []
    launcher.launch(first)
    follower = Thread(target=lambda: outcomes.append(launcher.follow(first, seen.watch())))
    follower.start()
    until(lambda: len(seen.epochs) > 2)
    # One worker of the second would fit on the other node: Kubernetes' own scheduler would place it.
    launcher.launch(second)
    until(lambda: told(gangs, second.flow_run_id) is not None, 90)
    before, reason = nodes(gangs, second.name), told(gangs, second.flow_run_id)
    still = not outcomes
    outcome = launcher.follow(second, waiting.watch())
    follower.join(300)
    assert still, "the first was at work all the time"
    assert before == [None, None], "none of the workers is placed before all can be"
    assert reason is not None
    assert reason[0] is Category.UNSCHEDULABLE
    assert f"The 2 workers of {second.name} are placed together or not at all, and there is room for 1" in reason[1]
    assert f"each wants {most:g} CPU" in reason[1]
    assert [outcome.failure, outcomes[0].failure] == [None, None]
    learned = [json.loads(gangs.output(gang, "weights.json")) for gang in (first, second)]
    assert learned[0] == pytest.approx(learned[1], abs=1e-12)
    for gang in (first, second):
        launcher.remove(gang)
        assert gangs.left(gang) == []
    until(lambda: not list(gangs.client.list(GROUPS)), 60)


@pytest.mark.parametrize("share", [1, 4], ids=["no room for all", "more than the cluster has"])
def test_a_gang_that_does_not_fit_ends_with_the_reason(gangs: Gangs, most: float, share: int) -> None:
    gang, seen = placed(gangs, least=3, most=3, cpu=most * share, below_least_s=20), Seen()
    launcher = gangs.launcher()
    launcher.launch(gang)
    until(lambda: told(gangs, gang.flow_run_id) is not None, 60)
    assert nodes(gangs, gang.name) == [None] * 3
    reason = told(gangs, gang.flow_run_id)
    assert reason is not None
    assert f"there is room for {2 if share == 1 else 0}: each wants {most * share:g} CPU" in reason[1]
    outcome = launcher.follow(gang, seen.watch())
    waits = [note for note in seen.notes if " waits: " in note]
    assert len(waits) == len(set(waits)), "nothing is said twice"
    said = str(outcome.failure)
    assert "had 0 of at least 3 workers for 20 s" in said
    assert f"({most * share * 1000:.0f}m cpu, 1200Mi memory each)" in said
    if share == 1:
        assert "there is room for it, but not for as many of its gang as must start together" in said
    gangs.launcher().remove(gang)
    assert gangs.left(gang) == []


def test_cancel_removes_the_group_too(gangs: Gangs, most: float) -> None:
    gang, seen = placed(gangs, least=3, most=3, cpu=most), Seen()
    launcher = gangs.launcher()
    launcher.launch(gang)
    until(lambda: len(nodes(gangs, gang.name)) == 3, 60)
    seen.stop = True
    with pytest.raises(StopError):
        launcher.follow(gang, seen.watch())
    launcher.remove(gang)
    assert gangs.left(gang) == []
    until(lambda: not list(gangs.client.list(GROUPS)), 60)
