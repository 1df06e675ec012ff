"""A site whose cluster is made by the real kubeadm: bare machines of a lab, packages and images from its own mirrors.

``KUBE_BIN`` names the folder of kubelet, kubeadm, kubectl, kube-apiserver, kube-controller-manager, kube-scheduler,
kube-proxy and coredns of one release; ``ETCD_BIN`` is etcd 3.5 or newer (kubeadm asks it for ``/readyz``), and what is
named ``etcdctl*`` beside it goes into the same image; where nothing is, this machine's own. Where Flannel is wanted,
``FLANNEL_BIN`` is a folder of ``flanneld`` and ``flannel``, its plugin.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from kube_images import BUSYBOX, push, wanted
from kube_packages import make_packages
from lab import Lab, LabError
from lab_sites import start_mlops

from configs.site import Site, load_site
from infra.machines.host_keys import pin
from infra.site.engine import Key, Outcome, State
from infra.site.inventory import site_folder
from infra.site.plan import site_steps
from infra.site.session import run_site
from infra.site.step import Step

NEEDED = ("systemd-nspawn", "mmdebstrap", "nsenter", "dpkg-deb", "gcc", "busybox", "etcdctl", "xtables-legacy-multi")
KUBE_BIN, ETCD_BIN, FLANNEL_BIN = (os.environ.get(name) for name in ("KUBE_BIN", "ETCD_BIN", "FLANNEL_BIN"))
BEFORE_IMAGES = ("base", "registry", "runtime", "kubernetes")
"""Steps before the registry has the images that the others need."""
NODES = {"master": "control-plane", "worker": "worker"}
OFFERED = "/kubernetes"
BOX = "box:1"
FILE = """\
storage: {{kind: directory, path: .mlops/share}}
registry:
  address: {registry}:5000
  ca: .mlops/site/authority/ca.crt
  user: mlops
  password: {{file: .mlops/registry-password}}
network: {{cidr: {network}.0/24, gateway: {network}.1}}
kubernetes:
  version: {version}
  packages: system
  images: {registry}:5000/kubernetes
  network: {pods}
  addons: []
  # A container's kernel is its host's: kubelet may not change its settings, nor kube-proxy the size of its tables.
  kubelet:
    featureGates: {{KubeletInUserNamespace: true}}
    protectKernelDefaults: false
    # The machines share this one's disk, which others fill.
    evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}}
    imageGCHighThresholdPercent: 100
  kube_proxy: {{conntrack: {{maxPerCore: 0}}}}
hosts:
  registry: {{address: {registry}, roles: [registry], ssh: {{user: admin, key: {key}}}}}
"""
HOST = "  {name}: {{address: {address}, roles: [{roles}], ssh: {{user: admin, key: {key}}}}}\n"
PAUSE = """\
#include <signal.h>
#include <unistd.h>
static void end(int number) { _exit(0); }
/* With -v the real one prints its version and ends: kubeadm looks by that whether the cluster runs a Job. */
int main(int count, char **words) { signal(SIGTERM, end); while (count < 2) pause(); return 0; }
"""
BRIDGE = """\
{{"cniVersion": "0.4.0", "name": "lab", "plugins": [
  {{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
    "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "{pods}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}
"""


class KubeSite:
    """Machines ``registry``, ``master`` and workers, bare, and the checkout ``root`` whose site they are.

    Args:
        binaries, etcd: see the module. nodes: by name, with their roles.
        more: sections of the site's file, given the registry's address.
        share: where all machines have a common folder; left out: nowhere.
        flannel: folder of its binaries, for a site that leaves its network at the default; left out: it has none.
    """

    def __init__(
        self,
        lab: Lab,
        root: Path,
        binaries: Path,
        etcd: Path,
        nodes: Mapping[str, str] = NODES,
        more: Callable[[str], str] = lambda registry: "",
        share: str = "",
        flannel: Path | None = None,
    ) -> None:
        self.root, self.home, self.lab = root, root / ".mlops", lab
        self.binaries, self.etcd, self.flannel = binaries, etcd, flannel
        self.version = release_of(binaries)
        self.offered = root / "offered"
        self.offered.mkdir(parents=True)
        self.offer(binaries)
        names = ("registry", *nodes)
        made = lab.add(*names, nodes=nodes, shared={OFFERED: self.offered}, common=self._common(share))
        self.machines = dict(zip(names, made, strict=True))
        address = self.machines["registry"].address
        pods = "flannel" if flannel else "none"
        text = FILE.format(registry=address, network=lab.network, version=self.version, key=lab.key, pods=pods)
        for name, roles in nodes.items():
            text += HOST.format(name=name, address=self.machines[name].address, roles=roles, key=lab.key)
            self.machines[name].run(
                "sh", "-c", f"echo 'deb [trusted=yes] file://{OFFERED} ./' >/etc/apt/sources.list.d/kubernetes.list"
            )
        self.file = root / "configs/site.yaml"
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(text + more(f"{address}:5000"))
        for name, machine in self.machines.items():
            pin(site_folder(self.home), name, [machine.host_key])

    def _common(self, share: str) -> dict[str, Path]:
        if not share:
            return {}
        folder = self.root / "common"
        folder.mkdir()
        folder.chmod(0o777)  # for the account that pods run as
        return {share: folder}

    @property
    def site(self) -> Site:
        return load_site(self.file)

    def steps(self) -> list[Step]:
        return site_steps(self.site, self.root, self.home)

    def run(self, *, apply: bool, steps: list[Step] | None = None, checks: bool = False) -> dict[Key, Outcome]:
        """Run the whole site, or some steps; as a scheduled check does, or as a person."""
        return run_site(self.site, self.root, self.home, _say, apply=apply, only_repairs=checks, steps=steps)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start ``mlops`` in the site's checkout."""
        return start_mlops(self.root, *words)

    def offer(self, binaries: Path) -> None:
        """Offer a release's packages to the machines."""
        make_packages(binaries, release_of(binaries), self.offered)

    def begin(self) -> None:
        """Run the steps before the registry has the images that the others need, and fill it."""
        outcomes = self.run(apply=True, steps=[step for step in self.steps() if step.name in BEFORE_IMAGES])
        assert {key: item.error for key, item in outcomes.items() if item.error} == {}
        self.fill()

    def fill(self, binaries: Path | None = None, etcd: Path | None = None) -> None:
        """Push what `mlops site images` names to the site's registry, which has to run, and an image for pods.

        Args:
            binaries: of another release than the site's. etcd: that goes with it; left out: the site's.
        """
        binaries = binaries or self.binaries
        pause = self.root / "pause"
        (self.root / "pause.c").write_text(PAUSE)
        subprocess.run(["gcc", "-static", "-O2", "-s", "-o", pause, self.root / "pause.c"], check=True)
        listed = self.start("site", "images", release_of(binaries))
        said, _ = listed.communicate(timeout=120)
        assert listed.returncode == 0, said
        names = [line.split()[1].rpartition("/")[2] for line in said.splitlines()]
        with self.registry() as client:
            for name, files in wanted(names, binaries, etcd or self.etcd, pause, self.flannel).items():
                push(client, f"kubernetes/{name}", files)
            applets = {f"bin/{name}": "busybox" for name in ("sh", "sleep", "nslookup", "nc", "httpd")}
            push(client, f"kubernetes/{BOX}", {"bin/busybox": BUSYBOX}, applets)

    def registry(self) -> httpx.Client:
        """Return a client of the site's registry, which has to run."""
        login = ("mlops", (self.home / "registry-password").read_text().strip())
        trusted = ssl.create_default_context(cafile=str(self.home / "site/authority/ca.crt"))
        url = f"https://{self.machines['registry'].address}:5000"
        return httpx.Client(base_url=url, verify=trusted, auth=login, timeout=120)

    def kubectl(self, *words: str, given: str = "") -> str:
        """Run kubectl on the control plane, past the code under test."""
        master = self.machines["master"]
        if given:
            (master.root / "root/given.yaml").write_text(given)
            words = (*words, "-f", "/root/given.yaml")
        return master.run("kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "--request-timeout=20s", *words)

    def objects(self, *words: str) -> list[dict[str, Any]]:
        """What ``kubectl get`` finds."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))["items"]

    def pod_networks(self) -> dict[str, str]:
        """Return each node's part of the network of pods."""
        return {item["metadata"]["name"]: item["spec"]["podCIDR"] for item in self.objects("nodes")}

    def connect_pods(self, networks: Mapping[str, str] | None = None) -> bool:
        """Do what an administrator does who brings a network of his own: a bridge, and routes between the nodes.

        Args:
            networks: of :meth:`pod_networks`; left out: as they are now.
        """
        networks = networks or self.pod_networks()
        for name, pods in networks.items():
            folder = self.machines[name].root / "etc/cni/net.d"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "10-lab.conflist").write_text(BRIDGE.format(pods=pods))
            for other, theirs in networks.items():
                if other != name:
                    self.lab.machines[name].ip("route", "replace", theirs, "via", self.machines[other].address)
        return True

    def ready(self) -> dict[str, bool]:
        """Which nodes the cluster calls Ready."""
        return {
            item["metadata"]["name"]: any(
                row["type"] == "Ready" and row["status"] == "True" for row in item["status"]["conditions"]
            )
            for item in self.objects("nodes")
        }


def skip_without(*more: str) -> None:
    """Skip a test where nobody is root, or where ``NEEDED`` programs, or ``more``, are not there."""
    needed = (*NEEDED, *more)
    missing = [name for name in needed if shutil.which(name) is None]
    if os.geteuid() or missing:
        pytest.skip(f"needs root and {', '.join(missing or needed)}")


def release_of(binaries: Path) -> str:
    """Return the release of a folder of binaries, without ``v``."""
    said = subprocess.run([binaries / "kubeadm", "version", "-o", "short"], capture_output=True, text=True, check=True)
    return said.stdout.strip().lstrip("v")


def eventually(what: Callable[[], object], timeout_s: float = 120) -> object:
    """Wait until ``what`` is true, and return it; a machine that does not answer is waited for as well."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            found = what()
        except LabError as error:
            found, said = None, str(error)
        else:
            said = repr(found)
        if found:
            return found
        assert time.monotonic() < deadline, said
        time.sleep(1)


def _say(step: Step, state: State, detail: str) -> None:
    print(f"{step.machine}: {step.name}: {state} {detail}")
