"""A real API server, started as the real kubeadm says it from our files: what it keeps, and what it writes down.

Needs kubeadm, kubectl, kube-apiserver and etcd on the path, and root: ``pytest -m cluster``. It runs in a network and a
root folder of its own, so that nothing of this machine's own cluster is touched.
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
from pathlib import Path, PurePosixPath

import pytest
import yaml

from infra.kubeadm.configuration import (
    AUDIT_LOG,
    AUDIT_POLICY,
    ENCRYPTION,
    Cluster,
    init_configuration,
    join_configuration,
)
from infra.kubeadm.flannel import NAMESPACE, flannel_manifest
from infra.kubeadm.joining import read_token, token_command
from infra.kubeadm.policy import audit_policy, encryption_configuration

pytestmark = pytest.mark.cluster
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
        done = subprocess.run(words, input=given, capture_output=True, text=True, check=False, timeout=60)
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() or missing:
        pytest.skip(f"needs root and {', '.join(missing or NEEDED)}")
    root = tmp_path_factory.mktemp("control-plane")
    made = Server(root)
    said = subprocess.run(["kubeadm", "version", "-o", "short"], capture_output=True, text=True, check=True).stdout
    cluster = Cluster(said.strip().lstrip("v"), "cluster", IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/12"))
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    for path, text in (
        ("/kubeadm.yaml", init_configuration(cluster, "master", ADDRESS)),
        (AUDIT_POLICY, audit_policy()),
        (ENCRYPTION, encryption_configuration(key)),
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
        (root / "etc/kubernetes/admin.conf").write_text((root / "etc/kubernetes/super-admin.conf").read_text())
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


def write_down(server: Server, kind: str, name: str, text: str) -> None:
    """Make an object that holds ``text``."""
    field = "stringData" if kind == "Secret" else "data"
    described = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, field: {"key": text}}
    server.kubectl("create", "-f", "-", given=yaml.safe_dump(described))


def test_secrets_are_encrypted_in_etcd_and_read_back(server: Server) -> None:
    canary = "canary-7c41"
    write_down(server, "Secret", "one", canary)
    write_down(server, "ConfigMap", "one", canary)
    stored = server.stored("/registry/secrets/default/one")
    assert as_hex("k8s:enc:secretbox:v1:site:") in stored
    assert as_hex(canary) not in stored
    # What is no secret is found by the same search.
    assert as_hex(canary) in server.stored("/registry/configmaps/default/one")
    encoded = server.kubectl("get", "secret", "one", "-o", "jsonpath={.data.key}")
    assert base64.b64decode(encoded).decode() == canary


def test_the_audit_log_says_who_did_what_and_no_secret(server: Server) -> None:
    canary = "canary-93ab"
    write_down(server, "Secret", "two", canary)
    server.kubectl("create", "serviceaccount", "somebody")
    time.sleep(1)
    log = (server.root / str(AUDIT_LOG).lstrip("/")).read_text()
    assert '"resource":"secrets","namespace":"default","name":"two"' in log
    assert '"username":"kubernetes-super-admin"' in log
    assert '"requestObject"' in next(line for line in log.splitlines() if '"name":"somebody"' in line)
    for shown in (canary, base64.b64encode(canary.encode()).decode()):
        assert shown not in log
    assert '"requestURI":"/readyz' not in log


def test_the_certificate_is_of_the_endpoints_name(server: Server) -> None:
    assert server.kubectl("get", "--raw", "/readyz") == "ok"
    with pytest.raises(RuntimeError, match="valid for"):
        server.kubectl("--tls-server-name=another", "get", "--raw", "/readyz")


def test_who_joins_finds_the_control_plane_by_a_token_of_minutes_and_its_ca(server: Server, tmp_path: Path) -> None:
    phase = ("kubeadm", "init", "phase", "bootstrap-token", "--rootfs", str(server.root), "--skip-token-print")
    config = "/etc/kubernetes/super-admin.conf"
    server.run(*phase, "--config", "/kubeadm.yaml", "--kubeconfig", config)
    command = token_command("worker", PurePosixPath(server.root / "etc/kubernetes"))
    token, digest = read_token(server.run(*command.argv))
    listed = next(line for line in server.run(*kubeadm_token(server), "list").splitlines() if line.startswith(token))
    assert listed.split()[1] in ("14m", "15m")
    assert "join of worker" in listed
    cluster = Cluster("1.33.0", ADDRESS, IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/12"))
    path = tmp_path / "join.yaml"
    # Discovery, with the signature by the token and the CA by its digest, comes before all that changes the machine.
    discover = ("kubeadm", "join", "phase", "preflight", "--ignore-preflight-errors=all", "--config", str(path))
    path.write_text(join_configuration(cluster, "worker", "192.168.10.101", token, digest))
    deadline = time.monotonic() + 30
    while True:  # the controller manager signs what is found by the token
        try:
            server.run(*discover)
            break
        except RuntimeError as error:
            if "kubeadm-config" in str(error):  # discovered, and then asked for what an init uploads at its end
                break
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
    path.write_text(join_configuration(cluster, "worker", "192.168.10.101", token, "sha256:" + "0" * 64))
    with pytest.raises(RuntimeError, match="none of the public keys"):
        server.run(*discover)


def kubeadm_token(server: Server) -> tuple[str, ...]:
    return ("kubeadm", "token", "--kubeconfig", f"{server.root}/etc/kubernetes/super-admin.conf")


def test_flannels_objects_are_taken_and_applying_them_again_changes_nothing(server: Server) -> None:
    manifest = flannel_manifest(IPv4Network("10.244.0.0/16"))
    apply = ("apply", "--server-side", "--field-manager=mlops", "-f", "-")
    said = server.kubectl(*apply, given=manifest)
    assert said.count("serverside-applied") == 6
    server.kubectl("diff", "--server-side", "--field-manager=mlops", "-f", "-", given=manifest)
    other = manifest.replace("10.244.0.0/16", "10.9.0.0/16")
    with pytest.raises(RuntimeError, match=r"10\.9\.0\.0/16"):
        server.kubectl("diff", "--server-side", "--field-manager=mlops", "-f", "-", given=other)
    assert NAMESPACE in server.kubectl("get", "namespaces")


def as_hex(text: str) -> str:
    """As ``etcdctl --hex`` prints it."""
    return "".join(f"\\x{byte:02x}" for byte in text.encode())
