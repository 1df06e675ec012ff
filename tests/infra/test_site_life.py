"""Workers in and out, a restore and a retirement as pure steps: what is there in, what is still to be done out."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest
from step_changes import commands, fact, found

from configs.problems import UserError
from configs.site import Site, load_site
from infra.kubeadm.snapshots import RELEASE
from infra.machines.commands import Command, File, Removal
from infra.site.facts import Fact, Reading
from infra.site.life import draining, leaving, restore
from infra.site.life.changes import add_worker_steps, remove_worker_steps, restore_steps
from infra.site.life.draining import drain
from infra.site.life.leaving import REMOVED, delete_step, drain_step, leave_step, node_fact, ready_step, return_step
from infra.site.life.restore import refresh_step, restore_step
from infra.site.life.retire import check_typed, retire_steps
from infra.site.reading import file_fact, unit_fact
from infra.site.step import Step
from infra.site.steps.control_plane import BEGUN, MADE, RESTORING

CHECKOUT = Path(__file__).parents[2]
RUNS = "LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nNeedDaemonReload=no\nMarked=1\n"
STOPPED = RUNS.replace("=enabled", "=disabled").replace("=active", "=inactive")
GONE = Reading(1, 'Error from server (NotFound): nodes "worker" not found')
AWAY = Reading(1, "The connection to the server was refused")
KEYS = {f"etc/kubernetes/pki/{name}.{half}": name.encode() for name in restore.KEYS for half in ("crt", "key")}
MEMBERS = {
    **KEYS,
    "etc/kubernetes/pki/sa.key": b"sa",
    "etc/kubernetes/pki/sa.pub": b"sa",
    "snapshot.db": b"y" * 7000000,
}


@pytest.fixture
def thesis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return load_site(CHECKOUT / "configs/site-thesis.yaml")


def test_a_worker_is_drained_of_what_can_go_elsewhere_and_only_once() -> None:
    step = drain_step("master", "worker", timeout_s=20)
    node, pods = node_fact("worker"), fact(step, "get pods")
    running = Reading(0, "DaemonSet kube-system/proxy\nReplicaSet default/one\n default/bare\nNode kube-system/file\n")
    (change,) = found(step, {node: Reading(0, ""), pods: running})
    assert change.why == "2 pods run there: default/one, default/bare"
    assert "worker --ignore-daemonsets --timeout=20s" in commands([change])
    assert "--force" not in commands([change])
    assert found(step, {node: Reading(0, "true"), pods: Reading(0, "DaemonSet kube-system/proxy\n")}) == []
    (cordon,) = found(step, {node: Reading(0, ""), pods: Reading(0, "")})
    assert cordon.why == "it takes new pods"
    assert found(step, {node: GONE}) == []
    (unknown,) = found(step, {node: AWAY})
    assert unknown.by_hand
    forced = drain_step("master", "worker", force=True)
    assert "--force --delete-emptydir-data" in commands(found(forced, {node: Reading(0, "")}))


def test_the_drain_tells_each_reason_once_and_ends_as_kubectl_did(tmp_path: Path) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\nfor i in 1 2 3; do echo 'error when evicting pods/one: budget' >&2; done\nexit 7\n")
    kubectl.chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(drain("worker", (), 1).argv, env=path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "error when evicting pods/one: budget\n")


def test_a_drain_that_budgets_keep_from_its_end_names_node_pod_budget_and_remedy() -> None:
    refused = "(will retry after 5s): Cannot evict pod as it would violate the pod's disruption budget."
    said = f"""\
node/worker cordoned
error when evicting pods/"went-1" -n "default" {refused}
error when evicting pods/"kept-1" -n "default" {refused}
error: unable to drain node "worker" due to error: error when evicting pods/"kept-1" -n "default": global timeout \
reached: 15s, continuing command...
budget default/kept keeps kept-1
budget default/of-one-that-went keeps went-1
budget other/kept keeps kept-1
"""
    what, remedy = drain("worker", (), 1).explain(said) or ("", "")
    assert what == "node worker cannot be drained: default/kept-1 may not end by its disruption budget (default/kept)"
    assert "change the budget (`kubectl -n default edit pdb kept`), " in remedy
    changed = said.partition("budget default")[0]
    what, remedy = drain("worker", (), 1).explain(changed) or ("", "")
    assert "(which has changed meanwhile)" in what
    assert "`kubectl get pdb -A`" in remedy


def test_a_drain_that_no_budget_keeps_from_its_end_names_none() -> None:
    said = "error: cannot delete Pods that declare no controller: default/x\nbudget default/kept keeps kept-1\n"
    what, _ = drain("worker", (), 1).explain(said) or ("", "")
    assert what.splitlines() == [
        "node worker cannot be drained",
        "   | error: cannot delete Pods that declare no controller: default/x",
    ]


def test_a_worker_that_leaves_is_marked_first_and_loses_its_credentials_last() -> None:
    step = leave_step("worker")
    kubelet = unit_fact("kubelet.service")
    changes = found(
        step, {kubelet: Reading(0, RUNS), fact(step, "tasks list"): Reading(0), file_fact(MADE): Reading(0)}
    )
    assert [change.what.split()[0] for change in changes] == ["mark", "end", "remove"]
    assert changes[0].actions == (REMOVED,)
    assert Removal(MADE.path) in changes[2].actions
    assert "disable --now kubelet" in commands(changes)
    left = {kubelet: Reading(0, STOPPED), file_fact(REMOVED): Reading(0)}
    assert found(step, left) == []
    # A site that is stopped only keeps them: it is to start again.
    stopped = leave_step("worker", forget=False)
    assert [item.what for item in found(stopped, {unit_fact("kubelet.service"): Reading(0, RUNS)})] == [
        "end kubelet and containers"
    ]
    assert " reset" not in commands(changes)


def test_a_node_is_deleted_where_the_api_server_has_it_and_not_where_it_says_nothing() -> None:
    step = delete_step("master", "worker")
    assert "delete node worker" in commands(found(step, {node_fact("worker"): Reading(0)}))
    assert found(step, {node_fact("worker"): GONE}) == []
    (unknown,) = found(step, {node_fact("worker"): AWAY})
    assert unknown.by_hand


def test_a_worker_comes_back_by_its_own_steps_and_is_waited_for(thesis: Site, tmp_path: Path) -> None:
    steps = add_worker_steps(thesis, tmp_path, tmp_path / ".mlops", "worker")
    names = [(step.machine, step.name) for step in steps]
    assert {machine for machine, _ in names} <= {"worker", "master", "mainserver"}
    assert ("worker", "return") in next(step for step in steps if step.name == "join").after
    assert (names[0], names[-1]) == (("master", "kubernetes"), ("master", "ready worker"))
    assert names[0] in next(step for step in steps if (step.machine, step.name) == ("worker", "kubernetes")).after
    assert found(return_step("worker"), {file_fact(REMOVED): Reading(0)})[0].actions == (Removal(REMOVED.path),)
    ready = ready_step("master", "worker")
    status = ready.facts[0]
    (wait,) = found(ready, {status: Reading(0, "False container runtime network not ready")})
    assert (wait.why, "--for=condition=Ready" in commands([wait])) == ("container runtime network not ready", True)
    assert found(ready, {status: Reading(0, "True kubelet is ready"), node_fact("worker"): Reading(0)}) == []
    (pods,) = found(ready, {status: Reading(0, "True kubelet is ready"), node_fact("worker"): Reading(0, "true")})
    assert "uncordon worker" in commands([pods])


def test_only_workers_of_the_file_come_and_go(thesis: Site, tmp_path: Path) -> None:
    for name in ("master", "storage", "nobody"):
        with pytest.raises(UserError, match=r"one of research, worker"):
            remove_worker_steps(thesis, tmp_path, name)
    assert [step.name for step in remove_worker_steps(thesis, tmp_path, "worker")] == [
        "drain worker",
        "leave",
        "delete worker",
    ]
    assert [step.machine for step in remove_worker_steps(thesis, tmp_path, "worker", lost=True)] == ["master"]
    none = load_site(CHECKOUT / "configs/site.yaml")
    with pytest.raises(UserError):
        remove_worker_steps(none, tmp_path, "worker")


def restoring(*, replace: bool = False) -> Step:
    return restore_step("master", "10.0.0.5", MEMBERS, (), (), replace=replace)


def test_a_bare_machine_gets_snapshot_marker_keys_and_data_in_this_order() -> None:
    sent, room, keys = found(restoring())
    pieces = [action for action in sent.actions if isinstance(action, Command) and action.stdin]
    assert len(pieces) == 3
    assert room.actions[-1] == RESTORING
    files = [action for action in keys.actions if isinstance(action, File)]
    private = [file for file in files if file.path.suffix == ".key"]
    assert [(file.mode, file.secret) for file in private] == [(0o600, True)] * 4
    kinds = [action for action in keys.actions if not isinstance(action, File)]
    assert [type(item) for item in kinds] == [Command, Removal, Removal]
    assert keys.actions.index(BEGUN) > keys.actions.index(kinds[0])
    assert Removal(RESTORING.path) in keys.actions
    subprocess.run(["sh", "-n"], input=restore._RESTORE + restore._ASIDE, text=True, check=True)


def test_a_living_cluster_and_what_is_there_are_not_touched() -> None:
    step = restoring(replace=True)
    (refused,) = found(step, {fact(step, "livez"): Reading(0, "ok")})
    assert (refused.actions, "alive" in refused.why) == ((), True)
    step = restoring()
    there = {fact(step, "-d /etc"): Reading(0, "/var/lib/etcd/member\n")}
    (refused,) = found(step, there)
    assert (refused.actions, "--replace master" in refused.by_hand) == ((), True)
    changes = found(restoring(replace=True), there)
    assert "rm -rf /var/lib/etcd\n" not in commands(changes)
    assert 'mv "$folder" "$folder.before-$now"' in commands(changes)


def test_a_restore_that_was_cut_off_is_gone_on_with_and_a_whole_one_is_done() -> None:
    step = restoring()
    digest = hashlib.sha256(MEMBERS["snapshot.db"]).hexdigest()
    half = {
        fact(step, "mlops-restoring"): Reading(0),
        fact(step, "-d /etc"): Reading(0, "/var/lib/etcd/member\n"),
        fact(step, "sha256sum /var"): Reading(0, f"{digest}  x\n"),
    }
    (again,) = found(step, half)
    assert again.why == "a restore was cut off"
    whole = {fact(step, "mlops-restored"): Reading(0, f"600 root\nx  -\n{digest}\n"), fact(step, "livez"): Reading(0)}
    assert found(step, whole) == []
    # Once more, because it broke again: only by the name typed, and then though it is the same backup.
    broken = {fact(step, "mlops-restored"): whole[fact(step, "mlops-restored")]}
    assert found(step, broken) == []
    step = restoring(replace=True)
    assert found(step, {fact(step, "mlops-restored"): whole[fact(restoring(), "mlops-restored")]}) != []


def test_a_worker_asks_anew_once() -> None:
    step = refresh_step("worker", MEMBERS, ())
    (change,) = found(step)
    assert "systemctl restart kubelet" in commands([change])
    assert found(step, {step.facts[0]: Reading(0)}) == []
    subprocess.run(["sh", "-n"], input=restore._REFRESH, text=True, check=True)


def test_no_cluster_is_made_where_a_restore_was_cut_off(thesis: Site, tmp_path: Path) -> None:
    members = {f"cluster/{name}": data for name, data in MEMBERS.items()}
    steps = restore_steps(thesis, tmp_path, tmp_path / ".mlops", members)
    assert [step.name for step in steps if step.machine == "master"][-5:] == [
        *("base", "runtime", "kubernetes", "restore", "control-plane")
    ]
    control_plane = next(step for step in steps if step.name == "control-plane")
    assert ("master", "restore") in control_plane.after
    assert [(step.machine, step.name) for step in steps[-2:]] == [("research", "refresh"), ("worker", "refresh")]
    (change,) = found(control_plane, {file_fact(RESTORING): Reading(0)})
    assert "mlops site restore" in change.by_hand
    assert restore_steps(thesis, tmp_path, tmp_path / ".mlops", {"state/x": b""}) == []
    with pytest.raises(UserError, match="type master"):
        restore_steps(thesis, tmp_path, tmp_path / ".mlops", members, "worker")


@pytest.mark.parametrize(
    ("taken", "words"),
    [
        ("1.33.13", ""),
        ("1.34.12", ""),
        ("1.34.2", ""),
        ("", ""),
        ("1.35.1", "the snapshot: is of Kubernetes 1.35.1, and configs/site.yaml says 1.34.9, which cannot read"),
        ("1.32.9", "may follow one minor version before it, and no more"),
    ],
)
def test_a_snapshot_is_restored_by_its_own_release_or_the_next_minor_one(
    thesis: Site, tmp_path: Path, taken: str, words: str
) -> None:
    members = {f"cluster/{name}": data for name, data in MEMBERS.items()} | {
        f"cluster/{RELEASE}": f"{taken}\n".encode()
    }
    assert thesis.kubernetes is not None
    kubernetes = thesis.kubernetes.model_copy(update={"version": "1.34.9"})
    site = thesis.model_copy(update={"kubernetes": kubernetes})
    if not words:
        assert restore_steps(site, tmp_path, tmp_path / ".mlops", members)
        return
    with pytest.raises(UserError, match=re.escape(words)) as refused:
        restore_steps(site, tmp_path, tmp_path / ".mlops", members)
    assert f"write `version: {taken}` there" in str(refused.value)


def test_a_retirement_keeps_all_data_unless_told(thesis: Site, tmp_path: Path) -> None:
    steps = retire_steps(thesis, tmp_path)
    everything = commands(change for step in steps for change in found(step, running(step)))
    assert "rm -rf" not in everything
    assert "kubeadm reset" not in everything
    order = {(step.machine, step.name): step for step in steps}
    assert ("master", "drain research") in order["research", "leave"].after
    assert {("research", "leave"), ("worker", "leave")} <= set(order["master", "leave"].after)
    assert ("master", "leave") in order["storage", "stop storage"].after
    told = retire_steps(thesis, tmp_path, data=True, reset=True)
    everything = commands(change for step in told for change in found(step, running(step)))
    assert "rm -rf --one-file-system -- /srv/samba/sambashare" in everything
    assert everything.count("kubeadm reset --force") == 3


def running(step: Step) -> dict[Fact, Reading]:
    """Readings of a machine where all that a step asks for is there and runs."""
    answers = {item: Reading(0, RUNS if "systemctl show" in " ".join(item.argv) else "there\n") for item in step.facts}
    return answers if step.name != "leave" else answers | {fact(step, "mlops-removed"): Reading(1)}


def test_all_names_are_typed_before_anything_is_stopped(thesis: Site, tmp_path: Path) -> None:
    names = ["research", "storage", "master", "registry", "worker"]
    check_typed(thesis, tmp_path, names)
    with pytest.raises(UserError) as caught:
        check_typed(thesis, tmp_path, ["mainserver", *names[:3]])
    assert [problem.where for problem in caught.value.problems] == [
        *("machine registry", "machine worker", "name 'mainserver'")
    ]


def test_the_scripts_are_shell() -> None:
    for script in (leaving._END, draining._SCRIPT, leaving._FORGET, restore._RESTORE, restore._ASIDE, restore._REFRESH):
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)
