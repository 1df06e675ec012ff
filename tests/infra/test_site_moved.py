"""A node with another address: files of kubeadm's in, what is to be done out; and never a loss of data."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from infra.kubeadm.configuration import Cluster
from infra.machines.commands import Command, File
from infra.site.facts import Reading
from infra.site.reading import file_fact, unit_fact
from infra.site.step import Change, Step
from infra.site.steps.control_plane import CONFIGURATION, MADE, control_plane_step
from infra.site.steps.moved import NODE_IP
from infra.site.steps.worker import REMOVED, join_step

CLUSTER = Cluster("1.33.5", "cluster", IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/12"))
KEY = base64.b64encode(bytes(32)).decode()
RUNS = "LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nNeedDaemonReload=no\nMarked=1\n"


def control_plane(address: str, cluster: Cluster = CLUSTER) -> Step:
    return control_plane_step("master", address, cluster, KEY, ())


def found(step: Step, was: Step) -> list[Change]:
    """What a step wants of a whole control plane that another step has made; its API server is not reached."""
    bare = list(was.changes({fact: Reading(1, "") for fact in was.facts}))
    files = [item for change in bare for item in change.actions if isinstance(item, File)]
    known = {
        file_fact(file): Reading(
            0,
            f"{file.mode:o} {file.group}\n{hashlib.sha256(file.text.encode()).hexdigest()}  -\n"
            + ("" if file.secret else file.text),
        )
        for file in files
    }
    known |= {file_fact(MADE): Reading(0), unit_fact("kubelet.service"): Reading(0, RUNS)}
    return list(step.changes({fact: known.get(fact, Reading(1, "no route")) for fact in step.facts}))


def test_a_control_plane_at_another_address_gets_certificates_for_it_and_keeps_its_data() -> None:
    (change,) = found(control_plane("192.168.10.55"), control_plane("192.168.10.50"))
    assert (change.what, change.why) == ("make it the control plane at 192.168.10.55", "it was at 192.168.10.50")
    commands = [" ".join(item.argv) for item in change.actions if isinstance(item, Command)]
    told = "\n".join(commands)
    assert "init phase certs apiserver" in told
    assert "init phase etcd local" in told
    assert "reset" not in told
    assert "/var/lib/etcd" not in told
    (removal,) = (line for line in commands if line.startswith("rm "))
    assert not any("/ca." in word or "/sa." in word for word in removal.split())
    # Killed before its end it is begun again: what says how the cluster is made is written last.
    assert [item.path for item in change.actions if isinstance(item, File)][-1] == CONFIGURATION
    assert commands.index(next(line for line in commands if "/readyz" in line)) < len(commands) - 2


def test_more_than_another_address_is_left_to_people() -> None:
    other = replace(CLUSTER, pods=IPv4Network("10.243.0.0/16"))
    changes = found(control_plane("192.168.10.55", other), control_plane("192.168.10.50"))
    assert [change.what for change in changes] == ["wait for the API server"]


def test_an_address_is_not_found_in_a_longer_one() -> None:
    mirrored = replace(CLUSTER, images="192.168.10.50:5000/kubernetes")
    (change,) = found(control_plane("192.168.10.55", mirrored), control_plane("192.168.10.5", mirrored))
    assert change.why == "it was at 192.168.10.5"


@pytest.mark.parametrize(
    ("said", "why"),
    [("192.168.10.101\n", []), ("", []), ("192.168.10.9\n", ["it was at 192.168.10.9"])],
)
def test_a_worker_at_another_address(said: str, why: list[str]) -> None:
    step = join_step("worker", "192.168.10.101", CLUSTER, "master", ())
    known = {fact: Reading(0, RUNS) for fact in step.facts} | {
        file_fact(REMOVED): Reading(1),
        NODE_IP: Reading(0 if said else 1, f"node-ip={said}"),
    }
    assert [change.why for change in step.changes(known) if "kubelet be at" in change.what] == why
