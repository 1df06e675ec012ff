"""A cluster by the real kubeadm is upgraded by one minor version, in runs that are refused, killed and cut short.

``KUBE_BIN`` and ``ETCD_BIN`` name the binaries (see ``kube_site``), and ``KUBE_BIN_NEXT`` those of a later release:
``pytest -m cluster``, as root.
"""

from __future__ import annotations

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
from lab import open_lab
from lab_sites import ended, start_flow

from configs.site import load_site
from infra.kubeadm.snapshots import PREFIX, STORE
from infra.site.engine import State
from infra.site.steps.kubernetes import PACKAGES

KUBE_BIN_NEXT = os.environ.get("KUBE_BIN_NEXT")
REASON = "needs KUBE_BIN, ETCD_BIN and KUBE_BIN_NEXT, the real Kubernetes in two releases"
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.machine,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not (KUBE_BIN and ETCD_BIN and KUBE_BIN_NEXT), reason=REASON),
]
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
        made = KubeSite(lab, folder / "checkout", Path(str(KUBE_BIN)), Path(str(ETCD_BIN)))
        made.begin()
        steps = [step for step in made.steps() if step.name != "cluster-health"]
        # On a slow machine kubeadm may give up waiting: the next run goes on.
        for _ in range(4):
            problems = [item.error for item in made.run(apply=True, steps=steps).values() if item.error]
            if not problems:
                break
        assert problems == []
        made.connect_pods()
        eventually(lambda: made.ready() == {"master": True, "worker": True})
        # Its shell takes no signal: it ends when its time of grace does.
        keep_one(made, command="while true; do sleep 1000; done", grace_s=20, scratch=True)
        made.kubectl("create", "secret", "generic", "kept", "--from-literal=word=a secret that was kept")
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


def test_killed_blocked_and_killed_again_it_is_gone_on_with(site: KubeSite) -> None:
    new = release_of(Path(str(KUBE_BIN_NEXT)))
    master, worker = site.machines["master"], site.machines["worker"]
    site.offer(Path(str(KUBE_BIN_NEXT)))
    site.fill(Path(str(KUBE_BIN_NEXT)))
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

    # Then it is done, and a budget keeps a pod where it is: the worker is as it was, but takes no new pods.
    code, said = mlops(site, "site", "upgrade", "--yes", "--timeout", "15")
    assert code == 1
    assert "Cannot evict pod as it would violate the pod's disruption budget" in said
    assert versions(site) == {"master": new, "worker": site.version}
    assert closed(site) == ["worker"]
    assert available(site)
    site.kubectl("delete", "poddisruptionbudget", "kept")

    # While the worker is drained.
    process = site.start("site", "upgrade", "--yes")
    eventually(lambda: not available(site))
    kill(process)
    assert versions(site)["worker"] == site.version

    code, said = mlops(site, "site", "upgrade", "--yes")
    assert code == 0, said
    assert f"All nodes are of {new}." in said
    assert versions(site) == {"master": new, "worker": new}
    assert closed(site) == []
    assert all(site.ready().values())
    eventually(lambda: available(site), 300)
    for machine in (master, worker):
        assert machine.run("apt-mark", "showhold").split() == list(PACKAGES)
    word = site.kubectl("get", "secret", "kept", "-o", "jsonpath={.data.word}")
    assert word == "YSBzZWNyZXQgdGhhdCB3YXMga2VwdA=="
    after = server(site)
    (old,), (now,) = before["spec"]["containers"], after["spec"]["containers"]
    assert (now["command"], now["volumeMounts"]) == (old["command"], old["volumeMounts"])
    assert (master.root / "etc/kubernetes/pki/apiserver.crt").read_bytes() != certificate
    assert (master.root / "etc/kubernetes/pki/ca.crt").read_bytes() == authority


def test_then_the_site_is_as_its_file_says_and_a_second_run_changes_nothing(site: KubeSite) -> None:
    code, said = mlops(site, "site", "plan")
    assert (code, "Nothing differs." in said) == (0, True), said
    taken = snapshots(site)
    code, said = mlops(site, "site", "upgrade", "--yes")
    assert (code, "Nothing is to be done" in said) == (0, True)
    assert snapshots(site) == taken


def test_the_flow_upgrades_what_is_left_and_a_node_that_was_closed_before_stays_closed(site: KubeSite) -> None:
    worker, new = site.machines["worker"], release_of(Path(str(KUBE_BIN_NEXT)))
    site.kubectl("cordon", "worker")
    pins = [f"{name}={site.version}-*" for name in ("kubelet", "kubectl")]
    worker.run("apt-get", "install", "-y", "--allow-downgrades", "--allow-change-held-packages", *pins)
    worker.run("systemctl", "restart", "kubelet")
    eventually(lambda: versions(site) == {"master": new, "worker": site.version} and all(site.ready().values()))
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
