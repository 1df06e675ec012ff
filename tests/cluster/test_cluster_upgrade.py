"""A cluster by the real kubeadm is upgraded by one minor version, from a bundle, in runs that are killed and cut short.

``KUBE_BIN`` and ``ETCD_BIN`` name the binaries (see ``kube_site``), ``KUBE_BIN_NEXT`` those of a later release, and
``ETCD_BIN_NEXT`` the etcd that goes with it: ``pytest -m cluster``, as root.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kept import available, image, keep_one
from kube_site import ETCD_BIN, KUBE_BIN, KubeSite, eventually, release_of, skip_without
from lab import LabError, LabMachine, open_lab
from lab_sites import ended, start_flow
from spread import spread, watching

from configs.site import load_site
from infra.kubeadm.configuration import AUDIT_LOG
from infra.kubeadm.etcd import ASK, OFFLINE, TOOLS
from infra.kubeadm.releases import parts
from infra.kubeadm.snapshots import PREFIX, SCRIPT, STORE
from infra.site.bundle import BUNDLE, open_bundle
from infra.site.engine import State
from infra.site.steps.kubernetes import PACKAGES

KUBE_BIN_NEXT, ETCD_BIN_NEXT = os.environ.get("KUBE_BIN_NEXT"), os.environ.get("ETCD_BIN_NEXT")
REASON = "needs KUBE_BIN, ETCD_BIN and KUBE_BIN_NEXT, the real Kubernetes in two releases"
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.machine,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not (KUBE_BIN and ETCD_BIN and KUBE_BIN_NEXT), reason=REASON),
]
NODES = {"master": "control-plane", "worker": "worker", "second": "worker"}
KEPT = "YSBzZWNyZXQgdGhhdCB3YXMga2VwdA=="
PASSPHRASE = "correct horse battery staple"
OPENED = ("--passphrase-file", "passphrase")
LOSE = """\
systemctl disable --now kubelet
for task in $(ctr -n k8s.io tasks ls -q); do ctr -n k8s.io tasks kill -a -s SIGKILL $task; done
"""
WITH_ETCD = pytest.mark.skipif(not ETCD_BIN_NEXT, reason="needs ETCD_BIN_NEXT, etcd of the next release")
SERVER = "etc/kubernetes/manifests/kube-apiserver.yaml"
ALONE = """\
apiVersion: v1
kind: Pod
metadata: {{name: alone}}
spec:
  nodeSelector: {{kubernetes.io/hostname: worker}}
  terminationGracePeriodSeconds: 1
  containers: [{{name: main, image: {image}, command: [/bin/sh, -c, "sleep 100000"]}}]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeSite]:
    skip_without()
    folder = tmp_path_factory.mktemp("upgrade")
    with open_lab(folder / "lab") as lab:
        made = KubeSite(lab, folder / "checkout", Path(str(KUBE_BIN)), Path(str(ETCD_BIN)), nodes=NODES)
        made.begin()
        steps = [step for step in made.steps() if step.name != "cluster-health"]
        # On a slow machine kubeadm may give up waiting: the next run goes on.
        for _ in range(4):
            problems = [item.error for item in made.run(apply=True, steps=steps).values() if item.error]
            if not problems:
                break
        assert problems == []
        made.connect_pods()
        eventually(lambda: made.ready() == dict.fromkeys(NODES, True))
        # Its shell takes no signal: it ends when its time of grace does.
        keep_one(made, command="while true; do sleep 1000; done", grace_s=20, scratch=True)
        made.kubectl("create", "secret", "generic", "kept", "--from-literal=word=a secret that was kept")
        spread(made, 2)
        (made.root / "passphrase").touch(0o600)
        (made.root / "passphrase").write_text(f"{PASSPHRASE}\n")
        assert {key: item.error for key, item in made.run(apply=True).items() if item.error} == {}
        yield made


def mlops(site: KubeSite, *words: str) -> tuple[int, str]:
    began = time.monotonic()
    process = site.start(*words)
    said, _ = process.communicate(timeout=1200)
    print(said, f"\n{' '.join(words)}: {process.returncode} after {time.monotonic() - began:.0f} s")
    return process.returncode, said


def kill(process: subprocess.Popen[str]) -> str:
    assert process.poll() is None, process.communicate()[0]
    os.killpg(process.pid, signal.SIGKILL)
    said = process.communicate()[0]
    print(said)
    return said


def versions(site: KubeSite) -> dict[str, str]:
    """What each kubelet is, as the cluster says."""
    nodes = site.objects("nodes")
    return {item["metadata"]["name"]: item["status"]["nodeInfo"]["kubeletVersion"].lstrip("v") for item in nodes}


def closed(site: KubeSite) -> list[str]:
    return [item["metadata"]["name"] for item in site.objects("nodes") if item["spec"].get("unschedulable")]


def server(site: KubeSite) -> dict[str, Any]:
    """The API server as kubeadm has described it."""
    return yaml.safe_load((site.machines["master"].root / SERVER).read_text())


def checks(master: LabMachine) -> set[str]:
    """The Jobs by which kubeadm has looked whether the cluster works."""
    return set(re.findall(r"upgrade-health-check-\d+", (master.root / str(AUDIT_LOG)[1:]).read_text()))


def snapshots(site: KubeSite) -> list[str]:
    """Those that are there, but for what the timer takes at 23 minutes past some hours."""
    said = site.machines["master"].run("sh", "-c", f"ls {STORE} | grep ^{PREFIX}")
    return [name for name in said.split() if not re.search(r"T(00|06|12|18)23", name)]


def test_what_cannot_be_done_is_refused_before_anything_is_touched(site: KubeSite) -> None:
    new = release_of(Path(str(KUBE_BIN_NEXT)))
    major, minor, _ = map(int, site.version.split("."))
    text, taken = site.file.read_text(), snapshots(site)
    for version, words in (
        (f"{major}.{minor - 1}.9", f"is older than {site.version}, which runs"),
        (f"{major}.{minor + 2}.0", f"upgrade to a {major}.{minor + 1} first"),
        ("1.34", "name one release, as 1.33.5"),
        (new, f"no source of the machine has it; the newest there are {site.version}"),
    ):
        code, said = mlops(site, "site", "upgrade", version, "--yes")
        assert (code, words in " ".join(said.split())) == (1, True), said
    # What the file says is brought by an upgrade, and by nothing else.
    site.file.write_text(text.replace(f"version: {site.version}", f"version: {new}"))
    code, said = mlops(site, "site", "apply", "--step", "kubernetes", "--step", "control-plane", "--step", "join")
    assert (code, "`mlops site upgrade` brings all nodes there" in said) == (1, True)
    site.file.write_text(text)
    code, said = mlops(site, "site", "upgrade")
    assert (code, f"Nothing is to be done: all nodes are of {site.version}." in said) == (0, True)
    assert (site.file.read_text(), snapshots(site)) == (text, taken)
    assert set(versions(site).values()) == {site.version}
    assert {item.state for item in site.run(apply=False).values()} == {State.FITS}


def test_an_etcd_with_another_member_is_refused_until_it_is_removed(site: KubeSite) -> None:
    new, master = release_of(Path(str(KUBE_BIN_NEXT))), site.machines["master"]
    version, members = map(json.loads, master.run("sh", "-c", ASK).splitlines())
    assert [item["name"] for item in members["members"]] == ["master"]
    if parts(version["etcdserver"]) >= (3, 5, 26) or not ETCD_BIN_NEXT:
        pytest.skip("needs an ETCD_BIN older than 3.5.26, and ETCD_BIN_NEXT")
    # One that never came: as a learner it has no vote.
    added = json.loads(etcdctl(site, "member", "add", "other", "--learner", "--peer-urls=https://192.0.2.1:2380"))
    code, said = mlops(site, "site", "upgrade", new, "--yes")
    told = f"etcd is {version['etcdserver']} and has 2 members (master, https://192.0.2.1:2380): with 3.6"
    assert (code, told in " ".join(said.split())) == (1, True), said
    etcdctl(site, "member", "remove", f"{added['member']['ID']:x}")
    assert set(versions(site).values()) == {site.version}


def test_a_bundle_without_the_release_is_refused_before_anything_is_touched(site: KubeSite) -> None:
    new, text = release_of(Path(str(KUBE_BIN_NEXT))), site.file.read_text()
    site.offer(Path(str(KUBE_BIN_NEXT)))
    code, said = mlops(site, "site", "bundle", "master", "--no-community")
    assert code == 0, said
    assert open_bundle(site.root / "site-packages.tar").kubernetes == (site.version,)
    site.file.write_text(text.replace("hosts:\n", "packages: {bundle: site-packages.tar}\nhosts:\n", 1))
    code, said = mlops(site, "site", "apply", "--step", "packages")
    assert code == 0, said
    before = (site.file.read_text(), carried(site), snapshots(site))
    code, said = mlops(site, "site", "upgrade", new, "--yes")
    told = f"site-packages.tar has {site.version}, and no other source is asked"
    assert (code, told in " ".join(said.split())) == (1, True), said
    assert f"`mlops site bundle MACHINE --kubernetes {new}`" in " ".join(said.split())
    assert (site.file.read_text(), carried(site), snapshots(site)) == before
    assert set(versions(site).values()) == {site.version}
    # On a machine that has been led past its own sources since: it is asked for what these have.
    code, said = mlops(site, "site", "bundle", "master", "--no-community", "--kubernetes", new)
    assert code == 0, said
    assert open_bundle(site.root / "site-packages.tar").kubernetes == (new,)
    assert (site.file.read_text(), carried(site)) == before[:2]


def carried(site: KubeSite) -> list[str]:
    """Which bundle each machine has."""
    return [machine.run("cat", str(BUNDLE / "digest")) for machine in site.machines.values()]


def test_killed_blocked_and_cut_off_from_power_it_is_gone_on_with(site: KubeSite) -> None:
    new = release_of(Path(str(KUBE_BIN_NEXT)))
    master, worker = site.machines["master"], site.machines["worker"]
    # Its kubeadm says which images the release has: the control plane gets the bundle first.
    code, said = mlops(site, "site", "apply", "--machine", "master", "--step", "packages")
    assert code == 0, said
    site.fill(Path(str(KUBE_BIN_NEXT)), Path(ETCD_BIN_NEXT) if ETCD_BIN_NEXT else None)
    code, said = mlops(site, "site", "backup", "before.age", *OPENED)
    assert code == 0, said
    with watching(site) as seen:
        upgrade(site, new, master, worker)
    # Never both workers at once, and of the pods that have room nowhere else always one.
    assert frozenset({"worker"}) in [away for _, away in seen.away]
    assert frozenset({"second"}) in [away for _, away in seen.away]
    assert frozenset({"worker", "second"}) not in [away for _, away in seen.away]
    assert seen.fewest >= 1


def upgrade(site: KubeSite, new: str, master: LabMachine, worker: LabMachine) -> None:
    before, taken = server(site), snapshots(site)
    certificate = (master.root / "etc/kubernetes/pki/apiserver.crt").read_bytes()
    authority = (master.root / "etc/kubernetes/pki/ca.crt").read_bytes()

    site.kubectl("apply", given=ALONE.format(image=image(site)))
    eventually(lambda: "Running" in site.kubectl("get", "pod", "alone", "-o", "jsonpath={.status.phase}"))
    code, said = mlops(site, "site", "upgrade", new, "--yes")
    assert (code, "nobody would start these pods again: default/alone" in " ".join(said.split())) == (1, True)
    site.kubectl("delete", "pod", "alone")
    assert f"version: {site.version}" in site.file.read_text()
    # Without an answer to its question, it has told what it would do.
    code, said = mlops(site, "site", "upgrade", new)
    assert code == 1
    assert f"run kubeadm upgrade apply v{new}, which renews all certificates" in " ".join(said.split())
    assert snapshots(site) == taken

    # While kubeadm changes the control plane.
    process = site.start("site", "upgrade", new, "--yes")
    while f":v{new}" not in (master.root / SERVER).read_text():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    kill(process)
    assert len(snapshots(site)) == len(taken) + 1
    assert load_site(site.file).kubernetes.version == new  # type: ignore[union-attr]
    eventually(lambda: master.run("sh", "-c", "pgrep -x kubeadm || echo none") == "none\n")

    # Then it is done, though the cluster is too late for kubeadm's first Job, and a budget keeps a pod where it is: the
    # worker is as it was, but takes no new pods. The other budget there lets no second pod go, and keeps none here.
    eventually(lambda: site.kubectl("taint", "node", "--all", "--overwrite", "late=yes:NoSchedule"))
    seen = checks(master)
    process = site.start("site", "upgrade", "--yes", "--timeout", "15")
    eventually(lambda: len(checks(master) - seen) > 1 or process.poll() is not None, 600)
    site.kubectl("taint", "node", "--all", "late-")
    said, _ = process.communicate(timeout=1200)
    print(said)
    assert process.returncode == 1
    told = r"node worker cannot be drained: default/kept-\S+ may not end by its disruption budget \(default/kept\)"
    assert re.search(told, " ".join(said.split())), said
    assert versions(site) == {"master": new, "worker": site.version, "second": site.version}
    assert closed(site) == ["worker"]
    assert available(site)
    site.kubectl("delete", "poddisruptionbudget", "kept")

    # While the worker is drained.
    process = site.start("site", "upgrade", "--yes")
    eventually(lambda: not available(site))
    kill(process)
    assert versions(site)["worker"] == site.version

    # While the worker's packages are changed, its power is cut. Nobody goes on with the other one without it.
    process = site.start("site", "upgrade", "--yes")
    while not (worker.root / "usr/bin/kubelet.dpkg-new").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    worker.cut_power()
    said, _ = process.communicate(timeout=600)
    print(said)
    assert process.returncode == 1
    assert "`mlops site upgrade` goes on from here" in " ".join(said.split())
    code, said = mlops(site, "site", "upgrade", "--yes")
    assert (code, "worker" in said) == (1, True)
    assert (versions(site)["second"], closed(site)) == (site.version, ["worker"])
    site.lab.power_on(worker)
    site.connect_pods()

    code, said = mlops(site, "site", "upgrade", "--yes")
    assert code == 0, said
    assert f"All nodes are of {new}." in said
    assert versions(site) == dict.fromkeys(NODES, new)
    assert closed(site) == []
    assert all(site.ready().values())
    eventually(lambda: available(site), 300)
    for name in NODES:
        machine = site.machines[name]
        assert f"file:{BUNDLE}" in machine.run("apt-cache", "policy", "kubelet")
        assert machine.run("apt-mark", "showhold").split() == list(PACKAGES)
    assert site.kubectl("get", "secret", "kept", "-o", "jsonpath={.data.word}") == KEPT
    after = server(site)
    (old,), (now,) = before["spec"]["containers"], after["spec"]["containers"]
    assert (now["command"], now["volumeMounts"]) == (old["command"], old["volumeMounts"])
    assert (master.root / "etc/kubernetes/pki/apiserver.crt").read_bytes() != certificate
    assert (master.root / "etc/kubernetes/pki/ca.crt").read_bytes() == authority


def test_then_the_site_is_as_its_file_says_and_a_second_run_changes_nothing(site: KubeSite) -> None:
    # No node, the registry has the bundle of before until somebody applies the site.
    code, said = mlops(site, "site", "apply", "--machine", "registry", "--step", "packages")
    assert (code, "carry site-packages.tar there" in said) == (0, True), said
    code, said = mlops(site, "site", "plan")
    assert (code, "Nothing differs." in said) == (0, True), said
    taken = snapshots(site)
    code, said = mlops(site, "site", "upgrade", "--yes")
    assert (code, "Nothing is to be done" in said) == (0, True)
    assert snapshots(site) == taken


def etcd(site: KubeSite) -> dict[str, Any]:
    """What etcd says of itself."""
    (row,) = json.loads(etcdctl(site, "endpoint", "status"))
    members = json.loads(etcdctl(site, "member", "list"))["members"]
    return {**row["Status"], "members": [item["name"] for item in members]}


def etcdctl(site: KubeSite, *words: str) -> str:
    """Ask etcd, past the code under test."""
    pki = "/etc/kubernetes/pki/etcd"
    login = (f"--cacert={pki}/ca.crt", f"--cert={pki}/healthcheck-client.crt", f"--key={pki}/healthcheck-client.key")
    place = (str(TOOLS / "etcdctl"), "--endpoints=https://127.0.0.1:2379", "--write-out=json")
    return site.machines["master"].run(*place, *login, *words)


def restored(site: KubeSite, file: str, *words: str) -> None:
    """Restore a backup, and wait for all nodes."""
    at = time.time() * 1000
    code, said = mlops(site, "site", "restore", file, *OPENED, *words)
    assert code == 0, said
    new = release_of(Path(str(KUBE_BIN_NEXT)))
    eventually(lambda: versions(site) == dict.fromkeys(NODES, new) and all(site.ready().values()), 300)
    assert site.kubectl("get", "secret", "kept", "-o", "jsonpath={.data.word}") == KEPT
    site.machines["master"].run(str(SCRIPT))  # whose tools the restored etcd's are
    said_now = etcd(site)
    assert said_now["members"] == ["master"]
    assert said_now["header"]["revision"] > at
    # A kubelet that has lost its serving certificate asks for another one, and names are resolved some seconds later.
    code, said = mlops(site, "site", "apply")
    assert code == 0, said
    code, said = mlops(site, "site", "plan")
    assert (code, "Nothing differs." in said) == (0, True), said
    site.kubectl("rollout", "restart", "deployment/kept")
    eventually(lambda: available(site), 300)


@WITH_ETCD
def test_the_next_etcd_has_the_data_and_is_backed_up_and_restored_by_its_own_image(site: KubeSite) -> None:
    master = site.machines["master"]
    master.run(str(SCRIPT))
    said = etcd(site)
    print(said)
    version = said["version"].rpartition(".")[0]
    assert (said["storageVersion"], said["members"]) == (f"{version}.0", ["master"])
    code, told = mlops(site, "site", "backup", "after.age", *OPENED)
    assert code == 0, told
    site.kubectl("create", "configmap", "after-the-backup")
    master.run("sh", "-c", LOSE)
    master.run("rm", "-rf", "/var/lib/etcd", "/etc/kubernetes", "/var/lib/kubelet/pki", str(TOOLS))
    restored(site, "after.age")
    assert etcd(site)["version"].startswith(version)
    with pytest.raises(LabError, match="NotFound"):
        site.kubectl("get", "configmap", "after-the-backup")
    # Its own etcdctl only takes them: what restores is the one of before, that the image has as well.
    assert "restore" not in master.run(str(TOOLS / "etcdctl"), "snapshot", "--help")
    assert "restore" in master.run(str(OFFLINE), "snapshot", "--help")


@WITH_ETCD
def test_a_backup_of_before_the_upgrade_is_restored_after_it(site: KubeSite) -> None:
    site.kubectl("create", "configmap", "after-the-upgrade")
    site.machines["master"].run("sh", "-c", LOSE)
    restored(site, "before.age", "--replace", "master")
    with pytest.raises(LabError, match="NotFound"):
        site.kubectl("get", "configmap", "after-the-upgrade")
    code, said = mlops(site, "site", "upgrade")
    assert (code, "Nothing is to be done" in said) == (0, True), said


def test_a_backup_of_after_the_upgrade_is_refused_by_a_site_of_the_release_before(site: KubeSite) -> None:
    new, text = release_of(Path(str(KUBE_BIN_NEXT))), site.file.read_text()
    code, said = mlops(site, "site", "backup", "last.age", *OPENED)
    assert code == 0, said
    site.file.write_text(text.replace(f"version: {new}", f"version: {site.version}"))
    code, said = mlops(site, "site", "restore", "last.age", *OPENED, "--replace", "master")
    told = f"is of Kubernetes {new}, and configs/site.yaml says {site.version}, which cannot read what a newer one"
    assert (code, told in " ".join(said.split())) == (1, True), said
    site.file.write_text(text)
    assert all(site.ready().values())


def test_the_flow_upgrades_what_is_left_and_a_node_that_was_closed_before_stays_closed(site: KubeSite) -> None:
    worker, new = site.machines["worker"], release_of(Path(str(KUBE_BIN_NEXT)))
    # The backup of before the upgrade has brought it back.
    site.kubectl("delete", "poddisruptionbudget", "kept", "--ignore-not-found")
    site.kubectl("cordon", "worker")
    pins = [f"{name}={site.version}-*" for name in ("kubelet", "kubectl")]
    own = ("apt-get", "-o", "Dir::Etc::SourceParts=/etc/apt/sources.list.d")  # the bundle has no older one
    worker.run(*own, "update")
    worker.run(*own, "install", "-y", "--allow-downgrades", "--allow-change-held-packages", *pins)
    worker.run("systemctl", "restart", "kubelet")
    mixed = {**dict.fromkeys(NODES, new), "worker": site.version}
    eventually(lambda: versions(site) == mixed and all(site.ready().values()))
    subprocess.run(["git", "init", "--quiet", site.root], check=True)
    code, said = ended(start_flow(site.root, "upgrade_cluster"), 900)
    print(said)
    assert code == 0
    assert f"run kubeadm upgrade node and install kubectl={new}-* kubelet={new}-*" in said
    assert "upgrade apply" not in said
    assert set(versions(site).values()) == {new}
    assert closed(site) == ["worker"]
    site.kubectl("uncordon", "worker")
    eventually(lambda: available(site), 300)
