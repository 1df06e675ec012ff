"""From bare machines to a cluster by the real kubeadm, and through what happens to it: kills, a power cut, a move.

``KUBE_BIN`` and ``ETCD_BIN`` name the binaries (see ``kube_site``): ``pytest -m cluster``, as root.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kube_site import BOX, ETCD_BIN, KUBE_BIN, KubeSite, eventually, skip_without
from lab import LabError, LabMachine, open_lab
from lab_sites import ended, start_flow
from stand_ins import bare_space, stand_in

from infra.kubeadm.joining import read_token, token_command
from infra.site.engine import State
from infra.site.step import Change
from infra.site.steps.control_plane import BEGUN, MADE
from infra.site.steps.worker import JOIN

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.machine,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not (KUBE_BIN and ETCD_BIN), reason="needs KUBE_BIN and ETCD_BIN, the real Kubernetes"),
]
POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: worker}}
  terminationGracePeriodSeconds: 1
  containers: [{{name: main, image: {image}, command: [/bin/sh, -c, "sleep 100000"]}}]
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeSite]:
    skip_without()
    folder = tmp_path_factory.mktemp("bare")
    with open_lab(folder / "lab") as lab:
        made = KubeSite(lab, folder / "checkout", Path(str(KUBE_BIN)), Path(str(ETCD_BIN)))
        made.begin()
        yield made


@pytest.fixture(scope="module")
def site(bare: KubeSite) -> KubeSite:
    """The cluster, made by runs that were killed, cut off and killed again, and by a last one."""
    master, worker = bare.machines["master"], bare.machines["worker"]
    kill_kubeadm_at(master, "/etc/kubernetes/manifests/kube-apiserver.yaml")
    run = bare.start("site", "apply", "--machine", "master")
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 1, said
    assert (master.root / str(BEGUN.path).lstrip("/")).exists()
    assert not (master.root / str(MADE.path).lstrip("/")).exists()

    run = bare.start("site", "apply", "--machine", "master")
    eventually(lambda: master.run("sh", "-c", "pgrep -x kubeadm || true").strip())
    time.sleep(2)
    master.disconnect()
    said, _ = run.communicate(timeout=120)
    master.connect()
    assert run.returncode == 1
    assert "connection was lost" in said
    assert not (master.root / str(MADE.path).lstrip("/")).exists()

    kill_kubeadm_at(worker, "/etc/kubernetes/bootstrap-kubelet.conf")
    run = bare.start("site", "apply", "--machine", "master", "--machine", "worker")
    said, _ = run.communicate(timeout=600)
    assert run.returncode == 1, said
    assert not (worker.root / str(MADE.path).lstrip("/")).exists()

    # Until somebody brings the network that this site leaves to others, its nodes are not ready: told, and no failure.
    outcomes = bare.run(apply=True)
    assert {key: item.error for key, item in outcomes.items() if item.error} == {}
    told, *others = outcomes["master", "cluster-health"].changes
    assert "not ready are master" in told.why
    assert all("pods have no network yet" in item.why for item in others)
    assert outcomes["master", "control-plane"].state is State.FITS
    assert "join the cluster of master" in [item.what for item in outcomes["worker", "join"].changes]
    bare.connect_pods()
    eventually(lambda: bare.ready() == {"master": True, "worker": True})
    assert {key: item.error for key, item in bare.run(apply=True).items() if item.error} == {}
    return bare


def kill_kubeadm_at(machine: LabMachine, path: str) -> None:
    """Have it killed there with -9 as soon as it has written a file of its middle."""
    script = f"until [ -e {path} ]; do sleep 0.02; done; pkill -KILL -x kubeadm"
    machine.run("systemd-run", "--collect", "--quiet", "sh", "-c", script)


def are_ready(site: KubeSite, *words: str) -> bool:
    found = site.objects("pods", *words)
    return bool(found) and all(
        any(row["type"] == "Ready" and row["status"] == "True" for row in item["status"].get("conditions", ()))
        for item in found
    )


def authority(site: KubeSite) -> str:
    found = (site.machines["master"].root / "etc/kubernetes/pki/ca.crt").read_bytes()
    return hashlib.sha256(found).hexdigest()


def run_pod(site: KubeSite, name: str) -> None:
    image = f"{site.machines['registry'].address}:5000/kubernetes/{BOX}"
    eventually(lambda: site.kubectl("get", "serviceaccount", "default"))
    site.kubectl("apply", given=POD.format(name=name, image=image))
    eventually(lambda: are_ready(site, "--field-selector", f"metadata.name={name}"))


def test_bare_machines_become_a_ready_cluster(site: KubeSite) -> None:
    assert site.ready() == {"master": True, "worker": True}
    eventually(lambda: are_ready(site, "-n", "kube-system"))
    run_pod(site, "one")
    # A service's address and the cluster's names, from a pod on another machine than theirs.
    assert finds_services(site, "one")


def finds_services(site: KubeSite, pod: str) -> bool:
    words = ("exec", pod, "--", "nslookup", "kubernetes.default.svc.cluster.local", "10.96.0.10")
    return bool(re.search(r"Address: 10\.96\.0\.1$", site.kubectl(*words), re.MULTILINE))


def test_a_second_run_changes_nothing(site: KubeSite) -> None:
    assert {item.state for item in site.run(apply=True).values()} == {State.FITS}


def test_tokens_are_of_minutes_and_on_no_disk(site: KubeSite) -> None:
    listed = site.objects("secrets", "-n", "kube-system", "--field-selector=type=bootstrap.kubernetes.io/token")
    assert listed
    secrets = []
    for item in listed:
        data = {name: base64.b64decode(value).decode() for name, value in item["data"].items()}
        assert datetime.fromisoformat(data["expiration"]) < datetime.now(UTC) + timedelta(minutes=15)
        secrets.append(data["token-secret"])
    (site.root / "tokens").write_text("\n".join(secrets))
    for machine in site.machines.values():
        assert not (machine.root / str(JOIN).lstrip("/")).exists()
        places = [machine.root / place for place in ("etc", "root", "home", "tmp", "var/log", "var/lib/etcd")]
        places += [machine.folder / "disk-kubelet", machine.folder / "console"]
        assert leaks(site.root / "tokens", *places) == ""
    assert leaks(site.root / "tokens", site.home) == ""
    # The search itself finds what is there.
    assert leaks(site.root / "tokens", site.root) != ""


def leaks(secrets: Path, *places: Path) -> str:
    there = [str(place) for place in places if place.exists()]
    search = ["grep", "-rlaF", "-f", str(secrets), *there]
    return subprocess.run(search, capture_output=True, text=True, check=False, timeout=120).stdout


def test_a_control_plane_with_another_ca_is_refused(site: KubeSite) -> None:
    master, worker = site.machines["master"], site.machines["worker"]
    command = token_command("nobody")
    token, digest = read_token(master.run(*command.argv))
    join = ("kubeadm", "join", "phase", "preflight", "cluster:6443", "--token", token, "--ignore-preflight-errors=all")
    with pytest.raises(LabError, match="none of the public keys"):
        worker.run(*join, "--discovery-token-ca-cert-hash", f"sha256:{'0' * 64}")
    worker.run(*join, "--discovery-token-ca-cert-hash", digest)


def test_a_power_cut_of_all_machines_loses_nothing(site: KubeSite) -> None:
    before = authority(site)
    site.kubectl("create", "configmap", "kept", "--from-literal=key=value-41c7")
    image = f"{site.machines['registry'].address}:5000/kubernetes/{BOX}"
    trains = stand_in("trains", "run", bare_space(image, "worker"), ["/bin/sh", "-c", "sleep 100000"])
    site.kubectl("apply", given=json.dumps(trains))
    eventually(lambda: site.objects("jobs")[0]["status"].get("ready") == 1)
    for machine in site.machines.values():
        machine.cut_power()
    # The other way round: a worker that finds no control plane, whose own images cannot be pulled yet.
    site.lab.power_on(*(site.machines[name] for name in ("worker", "master", "registry")))
    # A check that comes while all of it is starting calls nothing lost.
    asked = [step for step in site.steps() if step.name in ("cluster-health", "services")]
    told = [change for item in site.run(apply=True, checks=True, steps=asked).values() for change in item.changes]
    assert told
    assert [change for change in told if not change.note] == []
    eventually(site.connect_pods, 300)
    eventually(lambda: site.ready() == {"master": True, "worker": True}, 300)
    assert authority(site) == before
    assert site.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.key}") == "value-41c7"
    # Nobody saw the end of its pod, and it has another one.
    eventually(lambda: [site.objects("jobs")[0]["status"].get(key) for key in ("failed", "ready")] == [1, 1], 180)
    site.kubectl("delete", "job", "trains", "--cascade=foreground")
    # What the cluster knows of its pods is from before the cut: whether names resolve again, each node is asked.
    assert {key: item.error for key, item in site.run(apply=True).items() if item.error} == {}
    eventually(lambda: are_ready(site))
    assert finds_services(site, "one")
    # One that answers is enough for that; the other may still be starting.
    eventually(lambda: are_ready(site, "-n", "kube-system"), 180)
    assert {item.state for item in site.run(apply=True).values()} == {State.FITS}


def judged(site: KubeSite, word: str = "") -> Change | None:
    """What is said of the worker's node; None: nothing, or not ``word``."""
    steps = [step for step in site.steps() if step.name == "cluster-health"]
    (outcome,) = site.run(apply=True, checks=True, steps=steps).values()
    assert outcome.error is None
    return next((item for item in outcome.changes if "node worker" in item.what and word in item.why), None)


def waited_for(site: KubeSite, word: str) -> Change:
    found = eventually(lambda: judged(site, word))
    assert isinstance(found, Change)
    return found


def test_a_worker_that_is_off_boots_alone_or_has_no_way_is_told_apart(
    site: KubeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, worker = site.machines["master"], site.machines["worker"]
    # Nobody waits five minutes here: what was lost a moment ago is taken for lost before them.
    for module in ("cluster_health", "node_view"):
        monkeypatch.setattr(f"infra.site.steps.{module}.STARTS_S", 0)
    monkeypatch.setattr("infra.site.steps.starting.STARTS_S", 0)
    worker.cut_power()
    worker.disconnect()
    eventually(lambda: not site.ready()["worker"])
    off = judged(site)
    assert off is not None
    assert (off.note, off.what) == (False, "have node worker back")
    assert "and cannot be asked itself: " in off.why
    assert off.by_hand.startswith("switch it on")

    # It boots alone, while the control plane has been up for long, and finds no way to it.
    master.ip("route", "add", "prohibit", f"{worker.address}/32")
    worker.connect()
    site.lab.power_on(worker)
    told = waited_for(site, "does not reach the control plane at cluster:6443: ")
    assert (told.note, "getent hosts cluster" in told.by_hand) == (False, True)
    with monkeypatch.context() as patch:
        patch.setattr("infra.site.steps.starting.STARTS_S", 300)
        told = waited_for(site, "it was started at")
        assert told.note
        assert "does not reach the control plane at cluster:6443 yet" in told.why

    # What of it a kubelet says that cannot start.
    worker.run("sh", "-c", "echo KUBELET_EXTRA_ARGS=--never-heard-of >/etc/default/kubelet; systemctl restart kubelet")
    told = waited_for(site, "ends again and again: ")
    assert (told.note, "unknown flag: --never-heard-of" in told.why) == (False, True)
    worker.run("sh", "-c", "rm /etc/default/kubelet; systemctl stop kubelet")

    # A check starts one that only stopped; until it has reported it is expected, and then there is nothing to say.
    told = waited_for(site, "its kubelet is inactive")
    assert told.note
    steps = [step for step in site.steps() if (step.machine, step.name) == ("worker", "kubernetes")]
    (outcome,) = site.run(apply=True, checks=True, steps=steps).values()
    assert (outcome.state, [item.what for item in outcome.changes]) == (State.CHANGED, ["start kubelet.service"])
    monkeypatch.setattr("infra.site.steps.node_view.STARTS_S", 300)
    master.ip("route", "delete", "prohibit", f"{worker.address}/32")
    said = set()
    while (change := judged(site)) is not None:
        said.add((change.what, change.note))
    assert said <= {("wait for node worker", True)}
    eventually(lambda: site.ready()["worker"])
    site.connect_pods()
    eventually(lambda: finds_services(site, "one"))


def test_a_control_plane_at_another_address_is_the_same_cluster(site: KubeSite) -> None:
    master, before = site.machines["master"], authority(site)
    text, there, networks = site.file.read_text(), f"{site.lab.network}.77", site.pod_networks()
    master.ip("address", "delete", f"{master.address}/24", "dev", "eth0")
    master.ip("address", "add", f"{there}/24", "dev", "eth0")
    master.ip("route", "replace", "default", "via", f"{site.lab.network}.1")
    site.machines["master"] = replace(master, address=there)
    site.file.write_text(text.replace(f"master: {{address: {master.address}", f"master: {{address: {there}"))
    # Its routes have gone with its address.
    site.connect_pods(networks)
    outcomes = site.run(apply=True)
    assert {key: item.error for key, item in outcomes.items() if item.error} == {}
    told = [item.what for item in outcomes["master", "control-plane"].changes]
    assert told == [f"make it the control plane at {there}"]
    eventually(lambda: site.ready() == {"master": True, "worker": True}, 180)
    assert authority(site) == before
    assert site.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.key}") == "value-41c7"
    # It was restarted for the new address, on one node after the other.
    site.kubectl("rollout", "status", "daemonset/kube-proxy", "--namespace=kube-system", "--timeout=120s")
    assert {item.state for item in site.run(apply=True).values()} == {State.FITS}
    # By the endpoint's name: kubelet of the worker, and with new rules its pods.
    run_pod(site, "two")
    assert finds_services(site, "two")


def test_flows_take_a_worker_out_and_let_it_in_again(site: KubeSite) -> None:
    subprocess.run(["git", "init", "--quiet", str(site.root)], check=True)
    code, said = ended(start_flow(site.root, "remove_worker", name="worker", typed="wrong"), 300)
    assert (code, "type the machine's name twice" in said) == (1, True)
    remove = start_flow(site.root, "remove_worker", name="worker", typed="worker", force=True, timeout_s=60)
    code, said = ended(remove, 400)
    assert code == 0, said
    assert list(site.ready()) == ["master"]
    add = start_flow(site.root, "add_worker", name="worker")
    eventually(lambda: "worker" in site.ready(), 300)
    site.connect_pods()
    code, said = ended(add, 900)
    assert code == 0, said
    assert site.ready()["worker"]
