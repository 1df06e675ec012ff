"""Control plane and workers as pure steps: what is there in, what is still to be done out; and never a reset."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Network

import pytest
import yaml
from step_changes import found

from configs.problems import UserError
from infra.kubeadm.configuration import Cluster
from infra.kubeadm.hardening import KUBELET_CONFIG
from infra.kubeadm.joining import read_token
from infra.machines.commands import Command, File, Removal
from infra.site.facts import Fact, Reading
from infra.site.life.leaving import REMOVED
from infra.site.reading import file_fact, unit_fact
from infra.site.step import Action, Relay, Step
from infra.site.steps.control_plane import ADMIN, BEGUN, CONFIGURATION, MADE, READY, control_plane_step
from infra.site.steps.modes import mode_fact
from infra.site.steps.pod_network import pod_network_step
from infra.site.steps.starting import runs_at
from infra.site.steps.worker import JOIN, join_step

CLUSTER = Cluster("1.33.5", "cluster", IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/12"))
KEY = base64.b64encode(bytes(32)).decode()
RUNS = "LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nNeedDaemonReload=no\nMarked=1\n"
KUBELET = unit_fact("kubelet.service")
CONTROL_PLANE = control_plane_step("master", "192.168.10.50", CLUSTER, KEY, ())
JOINING = join_step("worker", "192.168.10.101", CLUSTER, "master", ())
TOKEN, DIGEST = "abcdef.0123456789abcdef", "0" * 64


def there(step: Step) -> Fact:
    return next(fact for fact in step.facts if "kubelet.conf" in " ".join(fact.argv) and "get" not in fact.argv)


def commands(actions: Iterable[Action]) -> list[str]:
    return [" ".join(action.argv) for action in actions if isinstance(action, Command)]


def written(step: Step) -> dict[Fact, Reading]:
    """Readings of a control plane's files as the step itself would write them."""
    files = [item for change in found(step, {}) for item in change.actions if isinstance(item, File)]
    return {
        file_fact(file): Reading(
            0,
            f"{file.mode:o} {file.group}\n{hashlib.sha256(file.text.encode()).hexdigest()}  -\n"
            + ("" if file.secret else file.text),
        )
        for file in files
        if file_fact(file) in step.facts
    }


def test_a_bare_machine_is_looked_at_strictly_and_then_made_the_control_plane() -> None:
    *files, init = found(CONTROL_PLANE, {})
    assert [change.what.split()[-1] for change in files] == [
        "/etc/kubernetes/audit-policy.yaml",
        "/etc/kubernetes/encryption.yaml",
        "/etc/kubernetes/admission.yaml",
        "/etc/kubernetes/authentication.yaml",
        str(CONFIGURATION),
    ]
    strict, begun, enable, run, *private, made = init.actions
    assert commands([strict]) == [f"kubeadm init phase preflight --config={CONFIGURATION}"]
    assert (begun, made) == (BEGUN, MADE)
    assert commands([enable]) == ["systemctl --no-reload enable kubelet.service"]
    # kubeadm leaves it for everybody to read.
    assert commands(private)[-1] == "chmod 0600 /var/lib/kubelet/config.yaml"
    assert "--skip-token-print" in commands([run])[0]


def test_an_init_that_was_killed_is_gone_on_with() -> None:
    known = {file_fact(BEGUN): Reading(0), there(CONTROL_PLANE): Reading(0, f"{ADMIN}\n")}
    init = found(CONTROL_PLANE, known)[-1]
    assert init.why == "kubeadm init was cut off"
    assert BEGUN not in init.actions
    (run,) = (line for line in commands(init.actions) if "kubeadm init" in line)
    assert "DirAvailable--var-lib-etcd" in run
    assert "all" not in run.partition("--ignore-preflight-errors=")[2].split(",")


def test_a_cluster_of_somebody_else_is_left_alone() -> None:
    (change,) = found(CONTROL_PLANE, {there(CONTROL_PLANE): Reading(0, f"{ADMIN}\n")})
    assert change.actions == ()
    assert str(ADMIN) in change.why
    assert f"touch {MADE.path}" in change.by_hand
    (change,) = found(JOINING, {there(JOINING): Reading(0, "/etc/kubernetes/kubelet.conf\n")})
    assert change.by_hand


def test_a_whole_control_plane_is_left_alone_and_one_that_is_down_is_started_and_waited_for() -> None:
    whole = written(CONTROL_PLANE) | {KUBELET: Reading(0, RUNS), READY: Reading(0, "ok")}
    whole |= {file_fact(MADE): Reading(0)}
    assert found(CONTROL_PLANE, whole) == []
    (start,) = found(
        CONTROL_PLANE, whole | {KUBELET: Reading(0, RUNS.replace("=active", "=failed")), READY: Reading(1)}
    )
    assert start.what.startswith("start kubelet.service")
    # kubeadm, and each upgrade by it, leaves this one for everybody to read.
    (mode,) = found(CONTROL_PLANE, whole | {mode_fact(KUBELET_CONFIG): Reading(0, "644 root root\n")})
    assert commands(mode.actions)[-1] == "chmod 0600 /var/lib/kubelet/config.yaml"
    (wait,) = found(CONTROL_PLANE, whole | {READY: Reading(1, "connection refused")})
    assert (wait.what, wait.why) == ("wait for the API server", "connection refused")


def test_a_changed_configuration_of_a_running_cluster_is_told_and_not_written() -> None:
    whole = written(CONTROL_PLANE) | {KUBELET: Reading(0, RUNS), READY: Reading(0, "ok")}
    changed = replace(CLUSTER, pods=IPv4Network("10.243.0.0/16"))
    other = control_plane_step("master", "192.168.10.50", changed, KEY, ())
    (change,) = found(other, whole | {file_fact(MADE): Reading(0)})
    assert change.actions == ()
    assert "kubeadm-reconfigure" in change.by_hand
    assert "+  podSubnet: 10.243.0.0/16" in change.diff


def test_a_newer_version_in_the_file_is_told_to_be_an_upgrade() -> None:
    whole = written(CONTROL_PLANE) | {KUBELET: Reading(0, RUNS), READY: Reading(0, "ok"), file_fact(MADE): Reading(0)}
    other = control_plane_step("master", "192.168.10.50", replace(CLUSTER, version="1.34.9"), KEY, ())
    (change,) = found(other, whole)
    assert change.actions == ()
    assert change.by_hand == "the cluster is of 1.33.5: `mlops site upgrade` makes it one of 1.34.9"


def test_a_worker_joins_by_what_the_control_plane_says_and_the_token_does_not_stay() -> None:
    (join,) = found(JOINING, {})
    (relay,) = join.actions
    assert isinstance(relay, Relay)
    assert relay.machine == "master"
    file, check, begun, enable, run, *_, made = relay.then(f"{TOKEN}\n{DIGEST}  -\n")
    assert isinstance(file, File)
    assert (file.path, file.mode, file.secret) == (JOIN, 0o600, True)
    pinned = yaml.safe_load(file.text)["discovery"]["bootstrapToken"]
    assert (pinned["token"], pinned["caCertHashes"]) == (TOKEN, [f"sha256:{DIGEST}"])
    assert (begun, made) == (BEGUN, MADE)
    shown = commands([check, enable, run])
    assert TOKEN not in " ".join(shown) + repr(file)
    assert "rm -f" in shown[0]
    assert "trap 'rm -f" in shown[2]


def test_a_join_that_was_killed_leaves_no_token_and_is_gone_on_with() -> None:
    (join,) = found(JOINING, {file_fact(BEGUN): Reading(0), there(JOINING): Reading(0)})
    assert join.why == "kubeadm join was cut off"
    left = {
        file_fact(BEGUN): Reading(0),
        file_fact(MADE): Reading(0),
        KUBELET: Reading(0, RUNS),
        Fact(("test", "-e", str(JOIN))): Reading(0),
        JOINING.facts[-2]: Reading(0, "node/worker\n"),
    }
    (remove,) = found(JOINING, left)
    assert remove.actions == (Removal(JOIN),)
    whole = left | {Fact(("test", "-e", str(JOIN))): Reading(1)}
    assert found(JOINING, whole) == []
    (mode,) = found(JOINING, whole | {mode_fact(KUBELET_CONFIG): Reading(0, "644 root root\n")})
    assert commands(mode.actions)[-1] == "chmod 0600 /var/lib/kubelet/config.yaml"


def test_a_node_that_the_cluster_does_not_know_is_told() -> None:
    known = {file_fact(MADE): Reading(0), KUBELET: Reading(0, RUNS)}
    (*_, listed, runs) = JOINING.facts
    (change,) = found(JOINING, known | {listed: Reading(1, 'nodes "worker" not found')})
    assert change.actions == ()
    assert 'nodes "worker" not found' in change.why
    # One that cannot be asked is no node that was deleted: it is waited for, and after a start no fault.
    silent = known | {listed: Reading(1, "Unable to connect to the server: net/http: TLS handshake timeout")}
    (change,) = found(JOINING, silent | {runs: Reading(0, "9000")})
    assert (change.why, len(change.actions), change.note) == ("it does not answer", 1, False)
    (change,) = found(JOINING, silent | {runs: Reading(0, " 70")})
    assert change.note
    # Nor when the control plane was switched on after this machine.
    (change,) = found(JOINING, silent | {runs: Reading(0, "9000"), runs_at("master"): Reading(0, " 70")})
    assert change.note
    # What another CA says will not pass.
    (change,) = found(JOINING, known | {listed: Reading(1, "Unable to connect to the server: x509: unknown authority")})
    assert change.by_hand


@pytest.mark.parametrize("said", ["", f"{TOKEN}\n", f"{DIGEST}  -\n", f"token is {TOKEN}\n{DIGEST}  -\n"])
def test_an_answer_without_token_or_digest_is_no_token_and_not_shown(said: str) -> None:
    with pytest.raises(ValueError, match="gave no token") as caught:
        read_token(said)
    assert TOKEN not in str(caught.value)
    (join,) = found(JOINING, {})
    (relay,) = join.actions
    assert isinstance(relay, Relay)
    with pytest.raises(UserError, match="master, asked for a token"):
        relay.then(said)


def test_no_step_resets_a_node() -> None:
    steps = (CONTROL_PLANE, JOINING, pod_network_step("master", CLUSTER, ()))
    for step in steps:
        for known in ({}, {file_fact(BEGUN): Reading(0)}):
            shown = repr(found(step, {fact: reading for fact, reading in known.items() if fact in step.facts}))
            assert " reset" not in shown
            assert KEY not in shown


def test_flannel_is_applied_when_the_cluster_has_another_one() -> None:
    step = pod_network_step("master", CLUSTER, ())
    file, differs = step.facts
    write, apply = found(step, {})
    assert write.what == "write /etc/kubernetes/mlops-flannel.yaml"
    assert "kubectl --kubeconfig=/etc/kubernetes/admin.conf" in commands(apply.actions)[0]
    (manifest,) = (item for item in write.actions if isinstance(item, File))
    same = Reading(0, f"600 root\n{hashlib.sha256(manifest.text.encode()).hexdigest()}  -\n{manifest.text}")
    assert found(step, {file: same, differs: Reading(0)}) == []
    (again,) = found(step, {file: same, differs: Reading(1, "-image: other\n")})
    assert again.diff == "-image: other\n"


def test_a_worker_that_was_taken_out_does_not_join_again_by_itself() -> None:
    (change,) = found(JOINING, {file_fact(REMOVED): Reading(0)})
    assert change.actions == ()
    assert "mlops site add-worker worker" in change.by_hand
