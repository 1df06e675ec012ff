"""Step ``services`` as a pure step, and its question as bash asks it."""

from __future__ import annotations

import socket
import subprocess
from ipaddress import IPv4Address, IPv4Network

import pytest

from infra.kubeadm.configuration import Cluster
from infra.site.facts import Reading
from infra.site.step import Change
from infra.site.steps.services import services_step
from infra.site.steps.starting import runs_at

STEP = services_step("worker", IPv4Address("10.96.0.10"), (), awaits_network=False)
REACHED, PROXY, PLUGIN, RUNS = STEP.facts


def found(
    *, reached: int = 124, proxy: int = 0, plugin: int = 0, runs_s: int = 9000, awaits_network: bool = False
) -> list[Change]:
    step = services_step("worker", IPv4Address("10.96.0.10"), (), awaits_network=awaits_network)
    readings = (Reading(reached), Reading(proxy), Reading(plugin), Reading(0, f" {runs_s}\n"))
    return list(step.changes(dict(zip(step.facts, readings, strict=True))))


def test_a_node_that_reaches_the_dns_is_left_alone() -> None:
    assert found(reached=0) == []
    assert not STEP.repairable


def test_a_node_that_does_not_is_waited_for_and_told_where_to_look() -> None:
    (change,) = found()
    assert "8472" in change.what
    assert (change.why, len(change.actions), change.note) == ("10.96.0.10 does not answer", 1, False)
    (change,) = found(proxy=22)
    assert "kube-proxy here has written no rules" in change.what


def test_a_machine_that_has_just_started_is_no_fault() -> None:
    (change,) = found(runs_s=60)
    assert change.note


def test_where_the_dns_may_run_is_asked_only_when_it_does_not_answer() -> None:
    step = services_step("worker", IPv4Address("10.96.0.10"), (), others=("master", "two"), awaits_network=False)
    facts = dict(zip(step.facts, (Reading(124), Reading(0), Reading(0), Reading(0, "9000")), strict=True))
    assert list(step.asks(facts)) == [runs_at("master"), runs_at("two")]
    assert list(step.asks(facts | {step.facts[0]: Reading(0)})) == []
    for runs, note in (("9000", False), (" 60", True)):
        (change,) = step.changes(facts | {runs_at("master"): Reading(255), runs_at("two"): Reading(0, runs)})
        assert change.note is note


def test_before_somebody_has_brought_the_network_there_is_nothing_to_ask() -> None:
    assert found(plugin=2, awaits_network=True) == []
    assert len(found(plugin=0, awaits_network=True)) == 1
    assert len(found(plugin=2)) == 1
    # So nobody is asked, either: an answer that cannot come takes five seconds.
    question = services_step("worker", IPv4Address("10.96.0.10"), (), awaits_network=True).facts[0].argv
    words = [word.replace("/etc/cni/net.d", "/nowhere").replace("exec 3", "echo asked; exec 3") for word in question]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert (done.returncode != 0, done.stdout) == (True, "")


def test_the_question_is_one_of_bash() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        words = [word.replace("/53", f"/{port}").replace("10.96.0.10", "127.0.0.1") for word in REACHED.argv]
        assert subprocess.run(words, check=False, timeout=20).returncode == 0
    assert subprocess.run(words, check=False, timeout=20, stderr=subprocess.DEVNULL).returncode == 1


@pytest.mark.parametrize(("services", "dns"), [("10.96.0.0/12", "10.96.0.10"), ("10.32.4.0/24", "10.32.4.10")])
def test_the_dns_has_the_tenth_address(services: str, dns: str) -> None:
    cluster = Cluster("1.33.5", "cluster", IPv4Network("10.244.0.0/16"), IPv4Network(services))
    assert str(cluster.dns) == dns
