"""A real API server, started as the real kubeadm says it from our files.

Needs kubeadm, kubectl, kube-apiserver, kube-controller-manager and etcd on the path, and root. It runs in a network and
a root folder of its own, so that nothing of this machine's own cluster is touched.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import yaml

from infra.kubeadm.configuration import AUDIT_LOG, AUDIT_POLICY, ENCRYPTION, Cluster, init_configuration
from infra.kubeadm.hardening import api_server_files
from infra.kubeadm.policy import audit_policy, encryption_configuration

NEEDED = ("kubeadm", "kubectl", "kube-apiserver", "etcd", "etcdctl", "nsenter", "ip")
ADDRESS, SPACE = "192.168.10.50", "mlops-kubeadm"
PHASES = (
    "certs all",
    "kubeconfig super-admin",
    "kubeconfig controller-manager",
    "control-plane apiserver",
    "control-plane controller-manager",
)


@dataclass(frozen=True)
class Server:
    """A control plane's API server and etcd; ``root`` is their machine's root folder."""

    root: Path

    def run(self, *command: str, given: str = "") -> str:
        """Run a command in their network."""
        words = ("nsenter", f"--net=/run/netns/{SPACE}", *command)
        done = subprocess.run(words, input=given, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return done.stdout

    def kubectl(self, *words: str, given: str = "") -> str:
        config = f"--kubeconfig={self.root}/etc/kubernetes/super-admin.conf"
        # By the name of the endpoint, which the certificate must have; no name of this machine leads there.
        return self.run(
            "kubectl", config, f"--server=https://{ADDRESS}:6443", "--tls-server-name=cluster", *words, given=given
        )

    def stored(self, key: str) -> str:
        """What etcd has under a key, as text."""
        pki = self.root / "etc/kubernetes/pki/etcd"
        tls = (f"--cacert={pki}/ca.crt", f"--cert={pki}/server.crt", f"--key={pki}/server.key")
        command = ("env", "ETCDCTL_API=3", "etcdctl", f"--endpoints=https://{ADDRESS}:2379", *tls)
        return self.run(*command, "get", key, "--print-value-only", "--hex")


@contextmanager
def open_server(root: Path) -> Iterator[Server]:
    """Start a control plane whose root folder is ``root``; it ends with the block."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() or missing:
        pytest.skip(f"needs root and {', '.join(missing or NEEDED)}")
    made = Server(root)
    said = subprocess.run(["kubeadm", "version", "-o", "short"], capture_output=True, text=True, check=True).stdout
    cluster = Cluster(said.strip().lstrip("v"), "cluster", IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/12"))
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    for path, text in (
        ("/kubeadm.yaml", init_configuration(cluster, "master", ADDRESS)),
        (AUDIT_POLICY, audit_policy()),
        (ENCRYPTION, encryption_configuration(key)),
        *api_server_files(cluster.version).items(),
    ):
        file = root / str(path).lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (root / str(AUDIT_LOG.parent).lstrip("/")).mkdir(parents=True)
    with ExitStack() as stack:
        subprocess.run(["ip", "netns", "delete", SPACE], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "add", SPACE], check=True)
        stack.callback(subprocess.run, ["ip", "netns", "delete", SPACE], check=False)
        subprocess.run(["ip", "-n", SPACE, "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "-n", SPACE, "address", "add", f"{ADDRESS}/24", "dev", "lo"], check=True)
        subprocess.run(["ip", "-n", SPACE, "route", "add", "default", "via", ADDRESS], check=True)
        for phase in PHASES:
            made.run("kubeadm", "init", "phase", *phase.split(), "--rootfs", str(root), "--config", "/kubeadm.yaml")
        pki = root / "etc/kubernetes/pki/etcd"
        client = ("--client-cert-auth", f"--trusted-ca-file={pki}/ca.crt")
        served = (f"--cert-file={pki}/server.crt", f"--key-file={pki}/server.key")
        urls = f"https://127.0.0.1:2379,https://{ADDRESS}:2379"
        listen = (f"--listen-client-urls={urls}", f"--advertise-client-urls={urls}")
        stack.enter_context(running(root / "etcd.log", "etcd", f"--data-dir={root}/etcd", *client, *served, *listen))
        log = stack.enter_context(started(root, "kube-apiserver"))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                made.kubectl("get", "--raw", "/readyz")
                break
            except RuntimeError:
                time.sleep(0.5)
        else:
            raise RuntimeError(log.read_text()[-3000:])
        for path in (root / "etc/kubernetes").glob("*.conf"):  # by address: no name of this machine leads there
            path.write_text(path.read_text().replace("https://cluster:", f"https://{ADDRESS}:"))
        stack.enter_context(started(root, "kube-controller-manager"))
        # For the tests the strongest of the two is the administrator.
        shutil.copy(root / "etc/kubernetes/super-admin.conf", root / "etc/kubernetes/admin.conf")
        yield made


@contextmanager
def started(root: Path, name: str) -> Iterator[Path]:
    """Run the very command that kubelet would start, in a root folder with the files that it would mount; its log."""
    pod = yaml.safe_load((root / f"etc/kubernetes/manifests/{name}.yaml").read_text())
    command = pod["spec"]["containers"][0]["command"]
    shutil.copy(shutil.which(command[0]) or "", root / name)
    log = root / f"{name}.log"
    with running(log, "chroot", str(root), f"/{name}", *command[1:]):
        yield log


def running(log: Path, *command: str) -> ExitStack:
    """Start a daemon in the network; it ends with the block."""
    words = ("nsenter", f"--net=/run/netns/{SPACE}", *command)
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log.open("wb"), stderr=subprocess.STDOUT)
    stack = ExitStack()
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    return stack
