"""A cluster by the real kubeadm through its life: backed up, lost, restored; a worker taken out and let in again.

It is restored and retired by the flows, inside Prefect; workers are taken out and let in by commands.

``KUBE_BIN`` and ``ETCD_BIN`` name the binaries (see ``kube_site``): ``pytest -m cluster``, as root.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kept import available, keep_one
from kube_site import BEFORE_IMAGES, ETCD_BIN, KUBE_BIN, KubeSite, eventually, skip_without
from lab import LabError, open_lab
from lab_sites import ended, start_flow

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.machine,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not (KUBE_BIN and ETCD_BIN), reason="needs KUBE_BIN and ETCD_BIN, the real Kubernetes"),
]
STEPS = (*BEFORE_IMAGES, "control-plane", "join", "snapshots")
PASSPHRASE = "correct horse battery staple"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeSite]:
    skip_without()
    folder = tmp_path_factory.mktemp("life")
    with open_lab(folder / "lab") as lab:
        made = KubeSite(lab, folder / "checkout", Path(str(KUBE_BIN)), Path(str(ETCD_BIN)))
        made.begin()
        steps = [step for step in made.steps() if step.name in STEPS]
        # On a slow machine kubeadm may give up waiting: the next run goes on.
        for _ in range(4):
            problems = [item.error for item in made.run(apply=True, steps=steps).values() if item.error]
            if not problems:
                break
        assert problems == []
        made.connect_pods()
        eventually(lambda: all(made.ready().values()))
        keep_one(made)
        made.kubectl("create", "secret", "generic", "kept", "--from-literal=word=a secret that was kept")
        subprocess.run(["git", "init", "--quiet", str(made.root)], check=True)
        (made.root / "passphrase").touch(0o600)
        (made.root / "passphrase").write_text(f"{PASSPHRASE}\n")
        yield made


def mlops(site: KubeSite, *words: str) -> tuple[int, str]:
    process = site.start(*words)
    said, _ = process.communicate(timeout=900)
    print(said)
    return process.returncode, said


def flow(site: KubeSite, name: str, /, **parameters: object) -> tuple[int, str]:
    code, said = ended(start_flow(site.root, name, **parameters), 900)
    print(said)
    assert (code == 0) == ("Finished in state Completed()" in said)
    return code, said


def containers(site: KubeSite) -> list[str]:
    """The containers of the kept pod, by their ids, empty before they have one; one more while it is replaced."""
    pods = site.objects("pods", "-l", "app=kept")
    return [status.get("containerID", "") for pod in pods for status in pod["status"].get("containerStatuses", ())]


def test_a_backup_is_written_whole_and_never_over_another(site: KubeSite) -> None:
    code, said = mlops(site, "site", "backup", "kept.age", "--passphrase-file", "passphrase")
    assert (code, "kept.age" in said) == (0, True)
    assert (site.root / "kept.age").stat().st_mode & 0o777 == 0o600
    code, said = mlops(site, "site", "backup", "kept.age", "--passphrase-file", "passphrase")
    assert code == 1
    assert "is there already" in said


def test_a_living_cluster_is_never_written_over(site: KubeSite) -> None:
    code, said = mlops(site, "site", "restore", "kept.age", "--passphrase-file", "passphrase", "--replace", "master")
    assert code == 1
    assert "there is one on this machine, and it is alive" in said
    assert site.ready()["master"]


def test_a_lost_control_plane_and_checkout_come_back_though_the_restore_is_killed(site: KubeSite) -> None:
    master = site.machines["master"]
    running = containers(site)
    site.kubectl("create", "configmap", "after-the-backup")
    # All of the control plane's disk that is the cluster's, and all that this checkout knows, but what is written down.
    master.run(
        "sh",
        "-c",
        "systemctl stop kubelet; "
        "for task in $(ctr -n k8s.io tasks ls -q); do ctr -n k8s.io tasks kill -a -s SIGKILL $task; done; true",
    )
    master.run("rm", "-rf", "/var/lib/etcd", "/etc/kubernetes", "/var/lib/kubelet/pki", "/usr/local/lib/mlops-etcd")
    master.run("systemctl", "disable", "kubelet")
    kept = site.root / "kept.age"
    for gone in (site.home, site.file):
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    words = ("site", "restore", str(kept), "--passphrase-file", "passphrase")
    process = site.start(*words)
    # The marker is there for a second or two.
    while not (master.root / "etc/kubernetes/mlops-restoring").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    print(process.communicate()[0])
    # Meanwhile nobody makes a new cluster of it.
    code, said = mlops(site, "site", "apply", "--machine", "master", "--step", "control-plane")
    assert code == 1
    assert "run `mlops site restore` again" in said
    began = time.monotonic()
    code, said = flow(site, "restore_site", file=str(kept), passphrase_file="passphrase")
    assert code == 0, said
    print(f"restored in {time.monotonic() - began:.0f} s")
    eventually(lambda: all(site.ready().values()), 180)
    # The same cluster: its secrets are readable, the worker's pod was never ended, what came later is not there.
    word = site.kubectl("get", "secret", "kept", "-o", "jsonpath={.data.word}")
    assert word == "YSBzZWNyZXQgdGhhdCB3YXMga2VwdA=="
    assert containers(site) == running
    with pytest.raises(LabError, match="NotFound"):
        site.kubectl("get", "configmap", "after-the-backup")
    assert site.file.exists()
    assert (site.home / "site/encryption-key").stat().st_mode & 0o777 == 0o600
    # It is the site's cluster as before: nothing is left to do, and new pods run.
    code, said = mlops(site, "site", "plan", "--machine", "master", "--step", "control-plane")
    assert code == 0, said
    site.kubectl("rollout", "restart", "deployment/kept")
    eventually(lambda: available(site) and not set(containers(site)) & set(running), 300)


def test_a_worker_is_drained_with_the_reasons_told_and_taken_out(site: KubeSite) -> None:
    worker = site.machines["worker"]
    words = ("site", "remove-worker", "worker", "--name", "worker", "--timeout", "15")
    # It lets no pod go either, and has none.
    site.kubectl("create", "poddisruptionbudget", "unrelated", "--selector=app=unrelated", "--min-available=1")
    code, said = mlops(site, *words)
    assert code == 1
    told = r"node worker cannot be drained: default/kept-\S+ may not end by its disruption budget \(default/kept\)"
    assert re.search(told, " ".join(said.split()))
    assert "awk" not in said
    assert "worker" in site.ready()
    code, said = mlops(site, "site", "remove-worker", "worker", "--name", "wrong")
    assert (code, "another name was typed" in said) == (1, True)
    site.kubectl("delete", "poddisruptionbudget", "kept")
    worker.run("sh", "-c", "mkdir -p /srv/kept && echo data >/srv/kept/file")
    code, said = mlops(site, *words[:-1], "120")
    assert code == 0, said
    assert list(site.ready()) == ["master"]
    assert worker.run("sh", "-c", "systemctl is-enabled kubelet; true").strip() == "disabled"
    assert worker.run("cat", "/srv/kept/file") == "data\n"
    assert (
        worker.run("sh", "-c", "ls /etc/kubernetes/kubelet.conf /var/lib/kubelet/pki/kubelet-client* 2>/dev/null; true")
        == ""
    )
    # Neither a boot nor an apply brings it back; the file's owner is told what to do.
    worker.cut_power()
    worker.boot()
    worker.wait()
    code, said = mlops(site, "site", "apply", "--machine", "worker", "--step", "join")
    assert code == 1
    assert "mlops site add-worker worker" in said
    assert list(site.ready()) == ["master"]


def test_a_worker_that_was_taken_out_is_let_in_again(site: KubeSite) -> None:
    code, said = mlops(site, "site", "add-worker", "nobody")
    assert (code, "worker 'nobody': is none in configs/site.yaml" in said) == (1, True)
    process = site.start("site", "add-worker", "worker")
    eventually(lambda: "worker" in site.ready(), 300)
    site.connect_pods()
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert site.ready()["worker"]
    eventually(lambda: available(site), 300)


def test_a_retired_site_is_stopped_and_has_its_data(site: KubeSite) -> None:
    names = [word for name in ("registry", "master", "worker") for word in ("--name", name)]
    code, said = mlops(site, "site", "retire", *names[2:], "--no-backup")
    assert (code, "machine registry: would be stopped" in said) == (1, True)
    code, said = flow(
        site,
        "retire_site",
        names=names[1::2],
        backup_to="last.age",
        passphrase_file="passphrase",
        timeout_s=120,
    )
    assert code == 0, said
    for name in ("master", "worker"):
        machine = site.machines[name]
        assert machine.run("sh", "-c", "systemctl is-enabled kubelet; true").strip() == "disabled"
        assert "RUNNING" not in machine.run("ctr", "-n", "k8s.io", "tasks", "list")
    assert (site.machines["master"].root / "var/lib/etcd/member").exists()
    assert (site.root / "last.age").exists()
    # And it is all there again.
    steps = [step for step in site.steps() if step.name in STEPS]
    outcomes = site.run(apply=True, steps=steps)
    assert {key: item.error for key, item in outcomes.items() if item.error} == {}
    eventually(lambda: all(site.ready().values()), 180)
