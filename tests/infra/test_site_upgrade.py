"""An upgrade as pure steps: what the cluster and its machines say in, what is in the way or still to be done out."""

from __future__ import annotations

import itertools
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from step_changes import commands, fact, found

from configs.kubernetes import Kubernetes
from configs.problems import UserError
from configs.site import Site, load_site
from infra.kubeadm import releases
from infra.kubeadm.configuration import told_version, with_version
from infra.kubeadm.etcd import why_not_3_6
from infra.kubeadm.releases import why_not
from infra.machines.commands import Command, File
from infra.site.bundle import Bundle
from infra.site.engine import Outcome, State
from infra.site.facts import Reading
from infra.site.life import applying, upgrading
from infra.site.life.applying import apply_commands
from infra.site.life.nodes import NODES
from infra.site.life.upgrade import CHECKS, Plan, obstacles, site_of, upgrade_steps, write_version
from infra.site.life.upgrade_checks import SERVER, TOLD, nodes_step, offer_step
from infra.site.life.upgrading import back_step, control_plane_step, empty_step, kubelet_step, snapshot_step
from infra.site.reading import file_fact, packages_fact, unit_fact
from infra.site.step import Change
from infra.site.steps.control_plane import CONFIGURATION, WAIT
from infra.site.steps.kubernetes import HELD, PACKAGES

CHECKOUT = Path(__file__).parents[2]
NEW = Kubernetes.model_validate({"version": "1.34.9", "packages": "system"})
OLD_PACKAGES = Reading(0, "".join(f"{name} hi  1.33.13-1.1\n" for name in PACKAGES))
NEW_PACKAGES = Reading(0, OLD_PACKAGES.text.replace("1.33.13", "1.34.9"))
ALL_HELD = Reading(0, "\n".join(PACKAGES))
RUNS = "LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nNeedDaemonReload=no\nMarked=1\n"
KUBELET, INSTALLED = unit_fact("kubelet.service"), packages_fact(PACKAGES)


def row(name: str, version: str, ready: str = "True", closed: str = "", upgrade: str = "", why: str = "fine") -> str:
    return "\t".join((name, f"v{version}", ready, closed, upgrade, why)) + "\n"


def told(version: str) -> Reading:
    return Reading(
        0, f"600 root\ndigest  -\nkind: ClusterConfiguration\nkubernetesVersion: v{version}\nclusterName: c\n"
    )


@pytest.mark.parametrize(
    ("running", "wanted", "words"),
    [
        ("1.33.13", "1.34.9", ""),
        ("1.33.5", "1.33.13", ""),
        ("1.34.9", "1.34.9", ""),
        ("1.33.13", "1.35.0", "one minor version"),
        ("1.33.13", "2.0.0", "one minor version"),
        ("1.33.13", "1.33.9", "is older"),
        ("1.33.13", "1.32.20", "is older"),
    ],
)
def test_a_release_is_followed_by_the_next_minor_version_at_most(running: str, wanted: str, words: str) -> None:
    what, remedy = why_not(running, wanted)
    assert words in what
    assert bool(what) == bool(remedy) == bool(words)


def cluster(*rows: str, server: str = "1.33.13", of: str = "1.33.13") -> list[Change]:
    step = nodes_step("master", ("worker",), NEW)
    known = {
        NODES: Reading(0, "".join(rows)),
        SERVER: Reading(0, f'{{"gitVersion": "v{server}"}}'),
        file_fact(TOLD): told(of),
        fact(step, "test -x"): Reading(0),
    }
    return found(step, known)


def test_a_whole_cluster_may_be_upgraded_and_so_may_one_where_that_was_cut_off() -> None:
    assert cluster(row("master", "1.33.13"), row("worker", "1.33.13")) == []
    # kubeadm had begun with the servers; then the control plane's kubelet; then a worker that was down meanwhile.
    assert cluster(row("master", "1.33.13"), row("worker", "1.33.13"), server="1.34.9") == []
    half = row("master", "1.34.9")
    assert cluster(half, row("worker", "1.33.13", closed="true", upgrade="1.34.9"), server="1.34.9", of="1.34.9") == []
    assert cluster(half, row("worker", "1.33.13", "Unknown", "true", "1.34.9"), server="1.34.9", of="1.34.9") == []
    assert cluster(half, row("worker", "1.34.9"), server="1.34.9", of="1.34.9") == []


@pytest.mark.parametrize(
    ("rows", "server", "words"),
    [
        ((row("master", "1.33.13"), row("worker", "1.32.5")), "1.33.13", "the nodes differ: worker has 1.32.5"),
        ((row("master", "1.34.9"), row("worker", "1.32.5")), "1.34.9", "the nodes differ: worker has 1.32.5"),
        ((row("master", "1.34.9"), row("worker", "1.33.13")), "1.33.13", "the nodes differ: master has 1.34.9"),
        ((row("master", "1.33.13"), row("worker", "1.33.13", "False", why="no network")), "1.33.13", "no network"),
        (
            (row("master", "1.33.13"), row("worker", "1.33.13", "Unknown", "true", "1.33.13")),
            "1.33.13",
            "it is not ready",
        ),
        ((row("master", "1.33.13"),), "1.33.13", "upgrade worker: it is no node"),
        ((row("master", "1.33.13"), row("worker", "1.33.13"), row("x", "1.33.13")), "1.33.13", "x: it is none of"),
        ((row("master", "1.32.5"), row("worker", "1.32.5")), "1.32.5", "upgrade to a 1.33 first"),
    ],
)
def test_a_cluster_that_is_not_whole_is_refused(rows: tuple[str, ...], server: str, words: str) -> None:
    refused = cluster(*rows, server=server)
    assert all(change.by_hand and not change.actions for change in refused)
    said = "\n".join(f"{change.what}: {change.why} {change.by_hand}" for change in refused)
    assert words in said


def test_a_cluster_that_says_nothing_is_waited_for_and_else_nothing_is_said() -> None:
    (change,) = found(nodes_step("master", (), NEW), {NODES: Reading(1, "connection refused")})
    assert change.actions == (WAIT,)
    assert "get --raw /readyz" in commands([change])


def offer(
    packages: str, offered: Reading, space: str, *, asked: bool = False, bundle: Bundle | None = None
) -> list[Change]:
    wanted = NEW.model_copy(update={"packages": packages})
    step = offer_step("worker", wanted, "run", (), bundle)
    known = {
        INSTALLED: OLD_PACKAGES,
        fact(step, "madison"): offered,
        fact(step, "df -Pm"): Reading(0, space),
        fact(step, "asked-run"): Reading(0 if asked else 1),
    }
    return found(step, known)


ROOM = "/usr/bin 9000\n/etc/kubernetes 9000\netcd 100\n"
OFFERED = "".join(f"   {name} | 1.34.9-1.1 | file:/kubernetes ./ Packages\n" for name in PACKAGES)


def test_packages_are_asked_of_apt_before_anything_is_touched() -> None:
    assert offer("community", Reading(0, OFFERED), ROOM) == []
    assert offer("system", Reading(0, OFFERED), ROOM) == []
    older = Reading(0, OFFERED.replace("1.34.9", "1.34.10").replace("kubeadm | 1.34.10", "kubeadm | 1.34.9"))
    # apt may not have looked for a day: it is told to, once.
    (ask,) = offer("system", older, ROOM)
    assert "apt-get" in commands([ask])
    assert "kubectl=1.34.9-* kubelet=1.34.9-*" in ask.why
    assert "kubeadm" not in ask.why
    (refused,) = offer("system", older, ROOM, asked=True)
    assert (refused.actions, "the newest there are 1.34.9, 1.34.10" in refused.why) == ((), True)
    (refused,) = offer("community", older, ROOM)
    assert refused.by_hand == "name a release that there is"
    (refused,) = offer("community", Reading(1, "Could not resolve 'pkgs.k8s.io'"), ROOM)
    assert "Could not resolve" in refused.why


def test_a_bundle_that_has_not_the_release_is_refused_before_it_is_carried() -> None:
    older = Bundle(Path("b.tar"), "digest", ("debian", "bookworm", "amd64"), ("1.33.13",))
    (refused,) = offer("system", Reading(0, OFFERED), ROOM, bundle=older)
    assert refused.why == "b.tar has 1.33.13, and no other source is asked"
    assert "`mlops site bundle MACHINE --kubernetes 1.34.9`" in refused.by_hand
    (refused,) = offer("system", Reading(0, OFFERED), ROOM, bundle=replace(older, kubernetes=()))
    assert "has no Kubernetes" in refused.why
    # One that has it is not on the machine yet when that is only looked at: apt is to be asked again, then.
    (ask,) = offer("system", Reading(0, ""), ROOM, bundle=replace(older, kubernetes=("1.34.9",)))
    assert "apt-get" in commands([ask])
    assert found(offer_step("worker", NEW, "run", (), older), {INSTALLED: NEW_PACKAGES}) == []


def members(*names: str, version: str = "3.5.24") -> str:
    described = json.dumps({"members": [{"name": name, "peerURLs": ["https://b:2380"]} for name in names]})
    return f'{{"etcdserver":"{version}","etcdcluster":"3.5.0"}}\n{described}\n'


@pytest.mark.parametrize(
    ("said", "wanted", "words"),
    [
        (members("master"), "1.34.9", ""),
        (members("master", "other"), "1.33.13", ""),
        (members("master", "other", version="3.5.26"), "1.34.9", ""),
        (members("master", "other", version="3.6.5"), "1.34.9", ""),
        (members("other", "master"), "1.34.9", "etcd is 3.5.24 and has 2 members (master, other)"),
        (members("", "master"), "1.35.0", "(master, https://b:2380)"),
        ("curl: (7) Failed to connect", "1.34.9", ""),
        ("[]\n3\n", "1.34.9", ""),
    ],
)
def test_several_members_of_etcd_are_mended_before_3_6_takes_them_as_they_are(
    said: str, wanted: str, words: str
) -> None:
    what, remedy = why_not_3_6(said, wanted)
    assert (words in what, bool(what)) == (True, bool(words))
    assert bool(remedy) == bool(words)
    step = nodes_step("master", (), NEW.model_copy(update={"version": wanted}))
    known = {
        NODES: Reading(0, row("master", "1.33.13")),
        SERVER: Reading(0, '{"gitVersion": "v1.33.13"}'),
        file_fact(TOLD): told("1.33.13"),
        fact(step, "test -x"): Reading(0),
        fact(step, "member/list"): Reading(0, said),
    }
    refused = [change for change in found(step, known) if "members" in change.why]
    assert bool(refused) == (bool(words) and wanted == "1.34.9")


def test_images_of_a_release_that_no_source_has_are_told_by_what_brings_it() -> None:
    ask = releases.images_command("1.34.9", "", "")
    told = ask.explain("E: Version '1.34.9-*' for 'kubeadm' was not found\n")
    assert told is not None
    assert "kubeadm 1.34.9" in told[0]
    assert "`mlops site apply --step packages`" in told[1]
    assert ask.explain("E: Unable to fetch some archives") is None


def test_a_full_machine_is_refused_and_etcd_needs_room_for_its_copy() -> None:
    (usr,) = offer("system", Reading(0, OFFERED), "/usr/bin 700\n/etc/kubernetes 9000\netcd 100\n")
    assert usr.why == "700 MB are free where /usr/bin is, and 1500 are wanted"
    (etc,) = offer("system", Reading(0, OFFERED), "/usr/bin 2000\n/etc/kubernetes 2000\netcd 600\n")
    assert etc.why == "2000 MB are free where /etc/kubernetes is, and 2100 are wanted"
    # A machine that has the release already needs none.
    step = offer_step("worker", NEW, "run", ())
    assert found(step, {INSTALLED: NEW_PACKAGES}) == []


def test_a_snapshot_comes_first_and_is_one_of_this_run() -> None:
    step = snapshot_step("master", NEW, "run", "on the share", ())
    (taken,) = found(step, {file_fact(TOLD): told("1.33.13")})
    assert "on the share" in taken.what
    assert commands([taken]).index("systemctl start mlops-etcd-snapshot") < commands([taken]).index("snapshot-run")
    assert found(step, {file_fact(TOLD): told("1.33.13"), fact(step, "snapshot-run"): Reading(0)}) == []
    assert found(step, {file_fact(TOLD): told("1.34.9")}) == []


def test_the_control_plane_is_upgraded_by_its_own_kubeadm_and_said_to_be_last() -> None:
    step = control_plane_step("master", NEW.model_copy(update={"ignore_preflight": ("Mem",)}), ())
    tool, apply = found(step, {INSTALLED: OLD_PACKAGES, file_fact(TOLD): told("1.33.13")})
    assert "--allow-change-held-packages kubeadm=1.34.9-*" in commands([tool])
    assert commands([tool]).endswith("apt-mark hold kubeadm")
    led, run, written = apply.actions
    assert isinstance(led, Command)
    assert "kube-scheduler" in led.argv[-1]
    assert commands([apply]).endswith(" kubeadm upgrade apply v1.34.9 --yes --ignore-preflight-errors=Mem")
    assert isinstance(written, File)
    assert (written.path, written.mode) == (CONFIGURATION, 0o600)
    assert written.text == "kind: ClusterConfiguration\nkubernetesVersion: v1.34.9\nclusterName: c\n"
    # Killed in between, it is done again; done, it is not.
    (again,) = found(step, {INSTALLED: NEW_PACKAGES, file_fact(TOLD): told("1.33.13")})
    assert again.actions[:2] == (led, run)
    assert found(step, {INSTALLED: NEW_PACKAGES, file_fact(TOLD): told("1.34.9")}) == []


@pytest.mark.parametrize(
    ("answers", "status", "tries"),
    [
        (["late", "late", "done"], 0, 3),
        (["late"] * 9, 1, applying.TRIES),
        (["other"], 3, 1),
        (["late", "other"], 3, 2),
        # As where one may be ignored: what it warns of is not what ends it.
        (["warned"], 3, 1),
    ],
)
def test_kubeadm_is_tried_again_only_where_the_cluster_was_too_late_for_its_job(
    tmp_path: Path, answers: list[str], status: int, tries: int
) -> None:
    said = {
        "late": 'echo "	[ERROR CreateJob]: Job did not complete in 15s" >&2; exit 2',
        "done": "echo upgraded",
        "other": 'echo "	[ERROR CoreDNS]: no" >&2; exit 3',
        "warned": 'echo "	[WARNING CreateJob]: Job did not complete in 15s" >&2; exit 3',
    }
    for at, answer in enumerate(answers):
        (tmp_path / f"answer{at}").write_text(said[answer])
    kubeadm = tmp_path / "kubeadm"
    kubeadm.write_text('#!/bin/sh\necho "$*" >>"$0.said"\n. "${0%/*}/answer$(($(wc -l <"$0.said") - 1))"\n')
    kubeadm.chmod(0o755)
    _, apply = apply_commands("1.34.9", ("--one",))
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(apply.argv, env=path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, "")
    assert kubeadm.with_name("kubeadm.said").read_text() == "upgrade apply v1.34.9 --yes --one\n" * tries
    assert "ended with" not in done.stdout
    what, _ = apply.explain("a line\n[ERROR CreateJob]: no") or ("", "")
    assert what.splitlines() == [
        "`kubeadm upgrade apply v1.34.9 --yes --one` did not succeed",
        "   | a line",
        "   | [ERROR CreateJob]: no",
    ]


def test_what_the_new_release_could_be_told_and_is_not_by_its_upgrade_is_in_the_plan() -> None:
    newer = Kubernetes.model_validate({"version": "1.32.9", "packages": "system"})
    packages = Reading(0, OLD_PACKAGES.text.replace("1.33.13", "1.31.9"))
    step = control_plane_step("master", newer, ())
    *_, note, apply = found(step, {INSTALLED: packages, file_fact(TOLD): told("1.31.9")})
    assert "--authentication-config" in note.what
    assert "1.31.9 has no such argument" in note.why
    assert note.only_told
    assert "kubeadm upgrade apply v1.32.9" in commands([apply])


def empty(node: str, pods: str = "", *, force: bool = False) -> list[Change]:
    step = empty_step("master", "worker", NEW, (), force=force, timeout_s=20)
    return found(step, {NODES: Reading(0, node), fact(step, "get pods"): Reading(0, pods)})


def test_a_node_is_drained_while_its_kubelet_is_older_and_what_it_was_before_is_written_down() -> None:
    pods = "ReplicaSet default/one\nDaemonSet kube-system/proxy\n"
    (drain,) = empty(row("worker", "1.33.13"), pods)
    assert drain.why == "1 pods run there: default/one"
    first, second = commands([drain]).splitlines()[0], commands([drain]).rpartition("sh worker")[2]
    assert first.endswith("annotate node worker --overwrite mlops/upgrade=1.34.9")
    assert second == " --ignore-daemonsets --delete-emptydir-data --timeout=20s"
    (drain,) = empty(row("worker", "1.33.13", closed="true"), pods)
    assert "mlops/upgrade=1.34.9 was closed before" in commands([drain])
    # Killed in the middle of it: it is gone on with, and that it was open before is not forgotten.
    (drain,) = empty(row("worker", "1.33.13", closed="true", upgrade="1.34.9"), pods)
    assert "annotate" not in commands([drain])
    assert empty(row("worker", "1.33.13", closed="true", upgrade="1.34.9")) == []
    assert empty(row("worker", "1.34.9"), pods) == []


def test_pods_that_nobody_starts_again_are_ended_only_when_told() -> None:
    pods = " default/bare\nReplicaSet default/one\n"
    (refused,) = empty(row("worker", "1.33.13"), pods)
    assert (refused.actions, "default/bare" in refused.why) == ((), True)
    (drain,) = empty(row("worker", "1.33.13"), pods, force=True)
    assert commands([drain]).endswith("--force")
    (unknown,) = found(empty_step("master", "worker", NEW, (), force=False, timeout_s=20), {NODES: Reading(1, "away")})
    assert unknown.by_hand


def kubelet(installed: Reading, unit: str = RUNS, mode: str = "600 root root", *, worker: bool = True) -> list[Change]:
    step = kubelet_step("worker", NEW, (), worker=worker)
    known = {INSTALLED: installed, HELD: ALL_HELD, KUBELET: Reading(0, unit), fact(step, "stat -c"): Reading(0, mode)}
    return found(step, known)


def test_kubelet_gets_its_configuration_its_package_and_a_start_in_this_order() -> None:
    tool, package, start = kubelet(OLD_PACKAGES)
    assert "kubeadm=1.34.9-*" in commands([tool])
    said = commands([package])
    assert said.index("/run/mlops-site/kubelet.service") < said.index("kubeadm upgrade node") < said.index("kubelet=1")
    assert "systemctl restart kubelet.service" in commands([start])
    # Killed before the start.
    (start,) = kubelet(NEW_PACKAGES, RUNS.replace("Marked=1", "Marked=0"))
    assert "systemctl restart kubelet.service" in commands([start])
    (private,) = kubelet(NEW_PACKAGES, mode="644 root root")
    assert "chmod 0600" in commands([private])
    assert kubelet(NEW_PACKAGES) == []
    # On the control plane kubeadm has done it with all the rest.
    said = commands(kubelet(OLD_PACKAGES, worker=False))
    assert "kubeadm" not in said
    assert said.index("install --allow-change-held-packages") < said.index("apt-mark hold kubectl kubelet")


def test_a_node_comes_back_as_it_was() -> None:
    step = back_step("master", "worker", NEW, ())
    (back,) = found(step, {NODES: Reading(0, row("worker", "1.34.9", closed="true", upgrade="1.34.9"))})
    wait, *rest = commands([back]).split("kubectl --kubeconfig=/etc/kubernetes/admin.conf --request-timeout=15s ")[-3:]
    assert (rest[0].strip(), rest[1]) == ("uncordon worker", "annotate node worker --overwrite mlops/upgrade-")
    assert "1.34.9" in wait
    kept = row("worker", "1.34.9", closed="true", upgrade="1.34.9 was closed before")
    (back,) = found(step, {NODES: Reading(0, kept)})
    assert "uncordon" not in commands([back])
    assert found(step, {NODES: Reading(0, row("worker", "1.34.9"))}) == []
    assert found(step, {NODES: Reading(0, row("worker", "1.34.9", closed="true"))}) == []


@pytest.fixture
def thesis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return load_site(CHECKOUT / "configs/site-thesis.yaml")


def test_one_node_is_changed_after_the_other_and_none_before_all_have_been_looked_at(
    thesis: Site, tmp_path: Path
) -> None:
    assert thesis.kubernetes is not None
    wanted, release = site_of(thesis, "v1.34.9")
    assert release == "1.34.9"
    assert site_of(thesis, "")[1] == thesis.kubernetes.version
    steps, where = upgrade_steps(wanted, tmp_path, tmp_path / ".mlops")
    assert where == "on the share, //192.168.10.40/sambashare/backups/cluster"
    assert [(step.machine, step.name) for step in steps] == [
        ("master", "nodes"),
        *((name, "offer") for name in ("master", "research", "worker")),
        ("master", "snapshot"),
        ("master", "upgrade"),
        *(("master", "drain master"), ("master", "kubelet"), ("master", "ready master")),
        *(("master", "drain research"), ("research", "kubelet"), ("master", "ready research")),
        *(("master", "drain worker"), ("worker", "kubelet"), ("master", "ready worker")),
    ]
    changing = [step for step in steps if step.name not in CHECKS]
    assert {("master", "nodes"), ("master", "offer"), ("worker", "offer")} <= set(changing[0].after)
    for before, step in itertools.pairwise(changing):
        assert step.after == ((before.machine, before.name),)
    assert not any(step.repairable for step in changing)


def test_what_is_no_release_or_no_cluster_is_refused(thesis: Site) -> None:
    for version in ("1.34", "latest", "1.30.1"):
        with pytest.raises(UserError, match="is none to upgrade to"):
            site_of(thesis, version)
    with pytest.raises(UserError, match="describes no cluster"):
        site_of(load_site(CHECKOUT / "configs/site.yaml"), "1.34.9")


def test_a_dry_run_tells_what_is_in_the_way_and_of_a_broken_cluster_only_that() -> None:
    refused = Change("get it", "there is none", by_hand="bring it")
    offered = Outcome(State.DIFFERS, (refused,))
    fits, todo = Outcome(State.FITS), Outcome(State.DIFFERS, (replace(refused, by_hand=""),))
    assert [str(problem) for problem in obstacles({("m", "nodes"): fits, ("w", "offer"): offered})] == [
        "w, step offer: get it: there is none\n    -> bring it"
    ]
    (only,) = obstacles({("m", "nodes"): offered, ("w", "offer"): offered})
    assert only.where == "m, step nodes"
    assert obstacles({("m", "nodes"): fits, ("m", "upgrade"): todo}) == []
    assert Plan("", "", {("m", "nodes"): fits}, []).done
    assert not Plan("", "", {("m", "nodes"): fits, ("m", "upgrade"): todo}, []).done


def test_the_version_is_written_into_the_file_and_nothing_else_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    text = (CHECKOUT / "configs/site-thesis.yaml").read_text()
    path.write_text(text)
    path.chmod(0o640)
    was = load_site(path).kubernetes
    assert was is not None
    assert write_version(path, "1.34.9")
    assert path.read_text() == text.replace(f"version: {was.version}", "version: 1.34.9", 1)
    assert path.stat().st_mode & 0o777 == 0o640
    assert not write_version(path, "1.34.9")
    assert [item.name for item in tmp_path.iterdir()] == ["site.yaml"]
    quoted = text.replace(f"version: {was.version}", 'version: "1.33.5"  # ours')
    path.write_text(quoted)
    assert write_version(path, "1.34.9")
    assert path.read_text() == quoted.replace('"1.33.5"', "1.34.9")


def test_only_kubeadms_version_is_replaced() -> None:
    text = "a: 1\nkubernetesVersion: v1.33.13\nb: v1.33.13\n"
    assert told_version(text) == "1.33.13"
    assert with_version(text, "1.34.9") == "a: 1\nkubernetesVersion: v1.34.9\nb: v1.33.13\n"
    assert told_version("a: 1\n") == ""


def test_the_scripts_are_shell() -> None:
    for script in (releases._OFFERED, releases._IMAGES, upgrading._WAIT, applying._LED, applying._APPLY):
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)
