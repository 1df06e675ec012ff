"""Why a node is not ready, by what the cluster says of it and what its own machine says: facts in, verdict out."""

from __future__ import annotations

import datetime

import pytest

from configs.problems import Problem
from infra.site.facts import Fact, Reading
from infra.site.step import Change
from infra.site.steps.cluster_health import cluster_health_step
from infra.site.steps.node_view import Described, has_no_way, own_facts

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
WORKER = Described("worker", "192.168.10.101", "cluster")
STEP = cluster_health_step("master", NOW + datetime.timedelta(days=3000), (), described=[WORKER])
OLD, NEW = "2029-12-31T20:00:00Z", "2029-12-31T23:57:00Z"
TOO_LATE = Reading(1, "Unable to connect to the server: dial tcp 192.168.10.50:6443: connect: no route to host\n")


def readings(since: str, ready: str, runs_s: int) -> dict[Fact, Reading]:
    """What the control plane says, which has run for ``runs_s``."""
    nodes = f"master\tReady=True \t{OLD}\tfine\nworker\tReady={ready} \t{since}\tPLEG is not healthy\n"
    answers = (nodes, "", "", f"{NOW.timestamp():.0f}\n", f" {runs_s}\n")
    return dict(zip(STEP.facts, (Reading(0, text) for text in answers), strict=True))


def kubelet(state: str, restarts: int = 0, age_s: int = 9000, error: str = "") -> Reading:
    age = str(age_s) if state == "active" else ""
    said = f"ActiveState={state}\nNRestarts={restarts}\nMainPID=7\nSeconds= {age}\n"
    return Reading(0, said + (f"Error={error}\n" if error else ""))


UP = kubelet("active")


def found(
    *,
    since: str = OLD,
    ready: str = "Unknown",
    server_s: int = 9000,
    runs_s: int = 9000,
    kubelet: Reading | None = None,
    address: str = WORKER.address,
    asked: Reading | None = None,
    lost: Problem | None = None,
) -> Change:
    facts = readings(since, ready, server_s)
    listed = asked or Reading(0, "node/worker\n")
    own = (Reading(0, f" {runs_s}\n"), kubelet or UP, Reading(0, f"node-ip={address}\n"), listed)
    if lost is not None:
        own = (Reading(255, unreached=lost),) * len(own)
    asks = tuple(STEP.asks(facts))
    assert asks == own_facts("worker")
    (change,) = STEP.changes(facts | dict(zip(asks, own, strict=True)))
    # Whatever it is, an apply waits first: its other steps may mend it meanwhile.
    assert "wait node/worker --for=condition=Ready" in str(change.actions).replace("', '", " ")
    assert change.note is (change.what == "wait for node worker") is not bool(change.by_hand)
    return change


def test_only_the_machine_of_a_node_that_is_not_ready_is_asked() -> None:
    assert list(STEP.asks(readings(OLD, "True", 9000))) == []
    assert all(fact.at == "worker" for fact in STEP.asks(readings(OLD, "Unknown", 9000)))


def test_a_worker_that_boots_alone_is_expected_and_not_lost() -> None:
    change = found(runs_s=120, kubelet=kubelet("active", age_s=60))
    assert change.note
    assert change.why == (
        "worker has been silent since 2029-12-31 20:00 UTC or longer; it was started at 2029-12-31 23:58 UTC; its "
        "kubelet has run since 2029-12-31 23:59 UTC and reaches the control plane at cluster:6443: it is expected soon"
    )
    # What comes in between: kubelet starts, or starts again for want of the runtime, and the network is not there.
    assert "kubelet is not up yet" in found(runs_s=20, kubelet=kubelet("activating", 5)).why
    change = found(runs_s=20, kubelet=kubelet("active", age_s=10), asked=TOO_LATE)
    assert (change.note, "does not reach the control plane at cluster:6443 yet" in change.why) == (True, True)


def test_a_control_plane_that_boots_after_its_worker_hears_of_it_soon() -> None:
    assert found(server_s=70).note
    change = found(server_s=70, asked=TOO_LATE)
    assert (change.note, "no route to host" in change.why) == (True, True)
    assert found(server_s=70, lost=Problem("worker", "192.168.10.101, port 22, does not answer", "switch it on")).note


def test_a_kubelet_that_was_started_anew_is_expected() -> None:
    assert found(kubelet=kubelet("active", age_s=30)).note
    assert found(kubelet=kubelet("deactivating")).note
    assert found(since=NEW).note


def test_a_machine_that_does_not_answer_is_lost_with_what_ssh_says() -> None:
    change = found(lost=Problem("worker", "192.168.10.101, port 22, does not answer", "switch it on"))
    assert change.why.endswith("and cannot be asked itself: 192.168.10.101, port 22, does not answer")
    assert change.by_hand == "switch it on"


def test_a_kubelet_that_ends_again_and_again_is_lost_with_its_last_words() -> None:
    error = '"command failed" err="failed to load kubelet config file"'
    change = found(kubelet=kubelet("activating", 40, error=error))
    assert change.why.endswith(f"its kubelet ends again and again: {error}")
    assert change.by_hand == "look why: `journalctl -u kubelet` on worker"
    # Up at this moment: it may have been mended just now.
    change = found(kubelet=kubelet("active", 40, 3, error))
    assert (change.note, "has been started again just now" in change.why) == (True, True)
    assert found(kubelet=kubelet("active", 40, 400)).by_hand
    # At a boot that is how it waits for others.
    assert found(runs_s=60, kubelet=kubelet("active", 4, 3)).note


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_a_kubelet_that_was_stopped_is_left_to_its_own_machines_steps(state: str) -> None:
    change = found(kubelet=kubelet(state))
    assert (change.note, f"its kubelet is {state}, and worker's step `kubernetes`" in change.why) == (True, True)


def test_a_kubelet_of_another_address_is_left_to_its_own_machines_step() -> None:
    change = found(address="192.168.10.7")
    assert change.why.endswith("; its kubelet is still at 192.168.10.7, which worker's step `join` mends")
    assert change.note


def test_a_machine_without_a_way_to_the_control_plane_is_lost_with_the_place_to_look() -> None:
    change = found(asked=TOO_LATE)
    assert "does not reach the control plane at cluster:6443: Unable to connect" in change.why
    assert "`getent hosts cluster`" in change.by_hand


def test_a_login_that_is_not_taken_is_lost_at_once() -> None:
    refused = Reading(1, "error: You must be logged in to the server (Unauthorized)\n")
    assert (
        "asking the control plane at cluster:6443 from there fails: error: You must be logged in"
        in found(asked=refused).why
    )
    assert found(asked=refused, server_s=60, runs_s=60).by_hand
    assert not has_no_way(Reading(1, "Unable to connect to the server: x509: certificate signed by unknown authority"))
    assert not has_no_way(Reading(127, "timeout: failed to run command 'kubectl': No such file or directory"))
    assert has_no_way(Reading(124))


@pytest.mark.parametrize(("ready", "why"), [("Unknown", "has been silent since"), ("False", "PLEG is not healthy")])
def test_a_kubelet_that_runs_and_reports_nothing_good_is_lost(ready: str, why: str) -> None:
    change = found(ready=ready)
    assert why in change.why
    assert "though its kubelet has run since 2029-12-31 21:30 UTC and reaches" in change.why
    assert change.by_hand == "look why: `journalctl -u kubelet` on worker"


def test_pods_of_a_node_that_is_expected_are_no_fault_either() -> None:
    facts = readings(OLD, "Unknown", 9000)
    facts[STEP.facts[1]] = Reading(0, "kube-system\tDaemonSet/kube-proxy\t2\t1\n")
    for state, note in ((kubelet("active", age_s=30), True), (kubelet("activating", 40), False)):
        own = (Reading(0, " 9000"), state, Reading(0, f"node-ip={WORKER.address}"), Reading(0))
        changes = list(STEP.changes(facts | dict(zip(own_facts("worker"), own, strict=True))))
        assert [change.note for change in changes] == [note, note]
