"""What a joined machine is in the cluster, as a pure step: its certificate, its role and its labels."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_kubelet_serving import ADDRESS, NAME, listed, request

from configs.problems import UserError
from infra.machines.commands import Command
from infra.site.facts import Fact, Reading
from infra.site.inventory import SiteMachine
from infra.site.step import Change, Relay, Step
from infra.site.steps.gpu import DRIVER, GPU
from infra.site.steps.node import SET, WORKER_ROLE, node_step

MACHINE = SiteMachine(NAME, ADDRESS, ("worker",), "root", 22, Path("key"), {"rack": "b2"})
STEP = node_step(MACHINE, "master", (), gpu=True)
NAMED = f"X509v3 Subject Alternative Name: \n    DNS:{NAME}, IP Address:{ADDRESS}\nCertificate will not expire\n"
SERVES = Reading(0, NAMED)
LABELS = {"rack": "b2", WORKER_ROLE: "", "kubernetes.io/hostname": NAME}


def found(
    labels: dict[str, str] = LABELS,
    listed_there: str = f"{WORKER_ROLE},rack",
    serving: Reading = SERVES,
    gpu: str = "",
    driver: bool = False,
    step: Step = STEP,
) -> list[Change]:
    certificate, node = (fact for fact in step.facts if fact not in (GPU, DRIVER))
    metadata = {"labels": labels, "annotations": {SET: listed_there}}
    readings: dict[Fact, Reading] = {
        certificate: serving,
        node: Reading(0, json.dumps({"metadata": metadata})),
        GPU: Reading(0, gpu),
        DRIVER: Reading(0 if driver else 1),
    }
    return list(step.changes(readings))


def patch(change: Change) -> dict[str, Any]:
    """What the control plane is to change of the node."""
    (action,) = change.actions
    assert isinstance(action, Relay)
    *words, last = action.command.argv
    assert (action.machine, words[-4:]) == ("master", ["patch", "node", NAME, "--type=merge"])
    return dict(json.loads(last.removeprefix("--patch="))["metadata"])


def test_a_node_as_wanted_is_left_alone() -> None:
    assert found() == []


def test_role_and_labels_are_given_and_listed() -> None:
    (change,) = found({"kubernetes.io/hostname": NAME, "rack": "a1"}, "")
    assert patch(change) == {"labels": {"rack": "b2", WORKER_ROLE: ""}, "annotations": {SET: f"{WORKER_ROLE},rack"}}


def test_a_label_that_the_site_once_gave_is_taken_away_and_no_other() -> None:
    (change,) = found(LABELS | {"old": "1", "somebodys": "1"}, f"{WORKER_ROLE},old,rack")
    assert patch(change) == {"labels": {"old": None}, "annotations": {SET: f"{WORKER_ROLE},rack"}}


def test_a_gpu_with_a_driver_is_labelled_unless_it_is_left_alone() -> None:
    (change,) = found(gpu="0000:01:00.0 0x2684\n", driver=True)
    assert patch(change)["labels"] == {"nvidia.com/gpu.present": "true"}
    assert found(gpu="0000:01:00.0 0x2684\n", driver=False) == []
    assert found(gpu="0000:01:00.0 0x2684\n", driver=True, step=node_step(MACHINE, "master", (), gpu=False)) == []


@pytest.mark.parametrize(
    ("reading", "why"),
    [
        (Reading(1, "Can't open file: No such file"), "No such file"),
        (Reading(1, NAMED.replace("will not", "will")), "will expire"),
        (Reading(0, NAMED.replace(ADDRESS, ADDRESS + "0")), "another address"),
    ],
)
def test_a_serving_certificate_is_asked_for_where_it_lacks_ends_or_names_another(reading: Reading, why: str) -> None:
    (change,) = found(serving=reading)
    assert change.what == "approve its serving certificate"
    assert why in change.why


def test_only_the_nodes_own_request_is_approved() -> None:
    (change,) = found(serving=Reading(1))
    (asked,) = change.actions
    assert isinstance(asked, Relay)
    approve, comes = asked.then(listed(request()))
    assert isinstance(approve, Relay)
    assert approve.command.argv[-3:] == ("certificate", "approve", "csr-1")
    assert isinstance(comes, Relay)
    # A node that moved has the certificate of before until kubelet gets this one.
    assert (comes.machine, comes.command.argv[-2]) == (NAME, ADDRESS)
    assert comes.then("came\n") == ()
    # Of a kubelet that was started anew meanwhile, it is another one.
    (once_more,) = comes.then("")
    assert isinstance(once_more, Relay)
    approve, comes = once_more.then(listed(request()))
    assert isinstance(comes, Relay)
    (last,) = comes.then("")
    assert isinstance(last, Relay)
    approve, waits = last.then(listed(request()))
    assert isinstance(waits, Command)
    # It was the right one, and signing it takes time.
    assert last.then('{"items": []}') == (waits,)
    with pytest.raises(UserError, match="asks for master as well"):
        asked.then(listed(request(dns=(NAME, "master"))))
    with pytest.raises(UserError, match="asks for no serving certificate"):
        asked.then('{"items": []}')


def test_a_serving_certificate_of_before_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    (change,) = found(serving=Reading(1))
    (asked,) = change.actions
    assert isinstance(asked, Relay)
    _, comes = asked.then(listed(request()))
    assert isinstance(comes, Relay)
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    make += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=node", "-days", "90"]
    subprocess.run([*make, "-addext", f"subjectAltName=IP:{ADDRESS}"], check=True, capture_output=True)
    shell, option, script, name, *_ = comes.command.argv
    # One that begins like the wanted address is not it.
    for address, status in ((ADDRESS[:-1], 1), (ADDRESS, 0)):
        command = [shell, option, script.replace("sleep 0.5", "exit 1"), name, str(certificate), address, "1"]
        assert subprocess.run(command, check=False, capture_output=True).returncode == status
