"""A cluster with the network that sites have by default: Flannel's real daemon and plugin, in the pods we describe.

``FLANNEL_BIN``, ``KUBE_BIN`` and ``ETCD_BIN`` name the binaries (see ``kube_site``): ``pytest -m cluster``, as root.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kube_site import BOX, ETCD_BIN, FLANNEL_BIN, KUBE_BIN, KubeSite, eventually, skip_without
from lab import LabError, open_lab

from infra.site.engine import State

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.machine,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not (KUBE_BIN and ETCD_BIN and FLANNEL_BIN), reason="needs KUBE_BIN, ETCD_BIN and FLANNEL_BIN: see kube_site"
    ),
]
POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: on-{node}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  tolerations: [{{operator: Exists}}]
  containers:
    - name: main
      image: {image}
      command: [/bin/sh, -c, "echo 'this is {node}' >/tmp/index.html; exec httpd -f -p 8080 -h /tmp"]
"""
BOTH = {"master": True, "worker": True}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeSite]:
    """A cluster with two pods, one on each machine."""
    skip_without()
    folder = tmp_path_factory.mktemp("flannel")
    with open_lab(folder / "lab") as lab:
        binaries, etcd, flannel = (Path(str(name)) for name in (KUBE_BIN, ETCD_BIN, FLANNEL_BIN))
        made = KubeSite(lab, folder / "checkout", binaries, etcd, flannel=flannel)
        made.begin()
        assert {key: item.error for key, item in made.run(apply=True).items() if item.error} == {}
        image = f"{made.machines['registry'].address}:5000/kubernetes/{BOX}"
        eventually(lambda: made.kubectl("get", "serviceaccount", "default"))
        for node in BOTH:
            made.kubectl("apply", given=POD.format(node=node, image=image))
        yield made


def address(site: KubeSite, node: str) -> str:
    return site.kubectl("get", "pod", f"on-{node}", "-o", "jsonpath={.status.podIP}").strip()


def reads(site: KubeSite, node: str, other: str) -> bool:
    """Whether the pod on ``node`` reaches the one on ``other``, and the cluster's names."""
    within = ("exec", f"on-{node}", "--")
    try:
        ask = f"printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address(site, other)} 8080"
        page = site.kubectl(*within, "sh", "-c", ask)
        names = site.kubectl(*within, "nslookup", "kubernetes.default.svc.cluster.local", "10.96.0.10")
    except LabError:
        return False
    return page.endswith(f"this is {other}\n") and "10.96.0.1\n" in names


def test_one_run_makes_a_cluster_whose_pods_reach_each_other(site: KubeSite) -> None:
    assert site.ready() == BOTH
    (daemons,) = site.objects("daemonsets", "-n", "kube-flannel")
    assert daemons["status"]["numberReady"] == 2
    assert eventually(lambda: reads(site, "worker", "master"))
    assert eventually(lambda: reads(site, "master", "worker"))
    for name, part in site.pod_networks().items():
        found = site.machines[name].run("ip", "-details", "link", "show", "flannel.1")
        assert "vxlan" in found
        # By the address that the site says, whatever other ones the machine has.
        assert f"local {site.machines[name].address}" in found
        assert address(site, name).rpartition(".")[0] == part.rpartition(".")[0]


def test_a_second_run_changes_nothing(site: KubeSite) -> None:
    assert {item.state for item in site.run(apply=True).values()} == {State.FITS}


def test_the_network_is_there_again_after_a_power_cut(site: KubeSite) -> None:
    for name in ("worker", "master", "registry"):
        site.machines[name].cut_power()
    site.lab.power_on(*(site.machines[name] for name in ("worker", "master", "registry")))
    eventually(lambda: site.ready() == BOTH, 300)
    assert eventually(lambda: reads(site, "worker", "master") and reads(site, "master", "worker"), 180)
    assert {key: item.error for key, item in site.run(apply=True).items() if item.error} == {}
