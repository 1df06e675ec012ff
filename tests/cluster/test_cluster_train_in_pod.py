"""The main job in pods of a real cluster: first run, second run, eviction, cancel, and what a user gets of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkouts import check
from lightkube.resources.core_v1 import Node
from pod_site import PodSite, pod_site

from configs.cluster import Cluster
from infra.kubernetes.client import connect

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def site(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodSite]:
    missing = [
        name for name in ("MLOPS_TEST_BASE", "MLOPS_TEST_REGISTRY", "MLOPS_TEST_ADDRESS") if name not in os.environ
    ]
    if missing:
        pytest.skip(f"runs in pods need {', '.join(missing)}, see pod_site.py")
    client = connect(Cluster(namespace=namespace))
    with pod_site(tmp_path_factory.mktemp("pods"), namespace, client, epochs=8, train=24) as made:
        yield made


@pytest.fixture(scope="module")
def nodes(site: PodSite) -> tuple[str, str]:
    names = sorted(str(node.metadata.name) for node in site.client.list(Node))
    if len(names) < 2:
        pytest.skip("going on at another node needs two nodes")
    return names[0], names[1]


@pytest.fixture(scope="module")
def evicted(site: PodSite, nodes: tuple[str, str]) -> str:
    """A run whose node was drained in the middle of its training, and which went on at the other one."""
    here, there = nodes
    site.place(here)
    run = site.run()
    site.until("third epoch", lambda: any("train: epoch 3/" in line for line in site.log(run)), 600)
    assert {pod.spec.nodeName for pod in site.pods(run)} == {here}
    site.place(there)
    site.evict(run)
    # Prefect's observer may call it Crashed before the worker's housekeeping has it go on.
    site.until("end", lambda: site.state(run) == "Completed", 900)
    return run


def test_an_evicted_training_goes_on_from_its_checkpoint_at_another_node(
    site: PodSite, evicted: str, nodes: tuple[str, str]
) -> None:
    states, said = site.states(evicted), "\n".join(site.log(evicted))
    assert "AwaitingRetry" in states
    assert "that an earlier run left in the share" in said
    assert "going on after epoch" in said
    assert said.count("train: epoch 1/8") == 1, "it began again"
    # The evicted pod is gone; the one that is left, or that went on, is the other node's.
    assert {pod.spec.nodeName for pod in site.pods(evicted)} == {nodes[1]}


def test_a_finished_training_leaves_no_checkpoint_in_the_share(site: PodSite, evicted: str) -> None:
    left = list((site.folder / "samba" / "sambashare" / "dvc" / "checkpoints").rglob("*.ckpt"))
    assert left == []


def test_a_second_run_on_the_node_pulls_and_trains_nothing(site: PodSite, evicted: str, nodes: tuple[str, str]) -> None:
    site.place(nodes[1])
    run = site.run()
    assert site.wait(run) == "Completed"
    # The last lines of its log arrive after its state.
    said = site.until("report", lambda: text if "Nothing was trained" in (text := "\n".join(site.log(run))) else "", 30)
    assert "train: not run: made earlier" in said
    assert "train: epoch" not in said
    assert "is in this machine's cache" in said


def test_a_cancelled_run_is_gone_within_30_s(site: PodSite, evicted: str) -> None:
    run = site.run(force=True)
    site.until("an epoch", lambda: any("train: epoch 1/" in line for line in site.log(run)), 300)
    began = time.monotonic()
    site.ask(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert site.wait(run, 30) == "Cancelled"
    site.until("end of its pod", lambda: all(pod.status.phase != "Running" for pod in site.pods(run)), 30)
    assert time.monotonic() - began < 30
    assert "Cancelled" in site.states(run)


def test_a_user_commits_what_the_pod_trained(site: PodSite, evicted: str, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    check(tmp_path, "git", "clone", "--quiet", str(site.root), str(clone))
    url = site.dvc("config", "--local", "remote.share.url", where=site.root).strip()
    site.dvc("remote", "modify", "--local", "share", "url", url, where=clone)
    password = str(site.home / "secrets" / "share-password")
    said = site.dvc("repro", "--pull", where=clone, DVC_SMB_PASSWORD_FILE=password)
    assert "Running stage" not in said
    assert "Stage 'train' is cached - skipping run" in said
    assert (clone / "dvc.lock").is_file()
    assert (clone / "models" / "model.pt").stat().st_size > 100_000
