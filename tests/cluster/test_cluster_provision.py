"""Flow ``provision-site`` to its end: bare machines, a cluster by the real kubeadm, image, platform, a training.

``KUBE_BIN`` and ``ETCD_BIN`` name the binaries (see ``kube_site``), ``MLOPS_TEST_TORCH`` a wheel of torch without CUDA
(see ``provision_images``); Postgres is this machine's: ``pytest -m cluster``, as root.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import images
import pytest
from base_images import ContainerTools
from certificates import Authority
from checkouts import copy_project, git
from kube_images import push
from kube_site import ETCD_BIN, KUBE_BIN, KubeSite, skip_without
from lab import LabError, open_lab
from lab_sites import ended, start_flow, start_mlops
from package_index import PackageIndex
from provision_images import POSTGRES, TORCH, add_environment, make_base, postgres_files

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.machine,
    pytest.mark.timeout(2700),
    pytest.mark.skipif(
        not (KUBE_BIN and ETCD_BIN and TORCH), reason="needs KUBE_BIN, ETCD_BIN and MLOPS_TEST_TORCH: see the modules"
    ),
]
# The platform, the training's own pod and its two workers want more processors than one node of these has.
NODES = {"master": "control-plane", "worker": "worker", "second": "worker"}
BASE = "localhost/environment:1"
SHARE = "/mnt/share"
MORE = """\
cluster:
  # What a mount of SMB is elsewhere: this kernel has none.
  share: {{kind: directory, path: /mnt/share}}
  state: {{host_path: /var/lib/mlops/state, node: worker}}
  images: {{postgres: "{registry}/kubernetes/postgres:1"}}
image: {image}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeSite]:
    skip_without("podman", str(POSTGRES / "bin/postgres"))
    folder = tmp_path_factory.mktemp("provision")
    tools, authority = ContainerTools(folder / "containers"), Authority(folder / "ca")
    index = PackageIndex(folder / "index", authority.issue("127.0.0.1"))
    usual = dict(os.environ)
    os.environ.update(tools.environment)
    image = {
        "builder": "podman",
        "base": make_base(tools, folder, BASE),
        "torch_index": index.url,
        "pip_conf": str(index.pip_conf(folder / "pip.conf")),
        "ca": str(authority.pem),
    }
    checkout = copy_project(folder / "checkout")
    try:
        with open_lab(folder / "lab") as lab:
            made = KubeSite(
                lab,
                checkout,
                Path(str(KUBE_BIN)),
                Path(str(ETCD_BIN)),
                NODES,
                lambda registry: MORE.format(registry=registry, image=json.dumps(image)),
                SHARE,
            )
            (checkout / "requirements.lock").write_text(images.fill_tools(index) + add_environment(index))
            git(checkout, "add", "--all", "--", ".", ":(exclude)offered", ":(exclude)common")
            git(checkout, "commit", "--quiet", "--all", "-m", "A small lock, and this site")
            made.begin()
            with made.registry() as client:
                push(client, "kubernetes/postgres:1", *postgres_files(folder))
            yield made
    finally:
        index.close()
        tools.remove()
        os.environ.clear()
        os.environ.update(usual)


def test_a_site_is_provisioned_to_its_end(site: KubeSite) -> None:
    # Whoever chose to bring the network of pods does it when there are nodes.
    ends = threading.Event()
    administrator = threading.Thread(target=connect_all, args=(site, ends), daemon=True)
    administrator.start()
    code, said = ended(start_flow(site.root, "provision_site", smoke=True), 2400)
    ends.set()
    administrator.join()
    print(said)
    assert code == 0, said[-6000:]
    assert "Finished in state Completed()" in said
    assert "the platform is up" in said
    again, said = ended(start_mlops(site.root, "site", "plan"), 300)
    assert again == 0, said


def connect_all(site: KubeSite, ends: threading.Event) -> None:
    connected = 0
    while connected < len(NODES) and not ends.wait(5):
        with contextlib.suppress(LabError, KeyError):  # no API server yet, or a node without its part of the network
            connected = len(site.objects("nodes"))
            site.connect_pods()
