"""A lost control plane restored by the site's own step: a real API server and etcd, by the real kubeadm.

``pytest -m cluster``, see ``api_server.py``. What it is restored on has folders, processes and a network of its own; it
has no containers, so kubelet's part, to start the servers, is done here.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import yaml
from api_server import ADDRESS, SPACE, open_server

from configs.problems import Problem, UserError
from infra.kubeadm.configuration import ENCRYPTION, Cluster
from infra.kubeadm.etcd import OFFLINE, TOOLS
from infra.machines.batch import Quick
from infra.machines.commands import Command, File, Removal
from infra.site.engine import State, run_steps
from infra.site.life.restore import KEYS, restore_step
from infra.site.step import Step
from infra.site.steps.control_plane import BEGUN, CONFIGURATION, RESTORING, control_plane_files

pytestmark = pytest.mark.cluster
PHASES = ("certs all", "kubeconfig super-admin", "control-plane apiserver")
_SPACE = """\
set -e
for folder in etc var/lib usr/local; do
  name=$(printf %s "$folder" | tr / -)
  mkdir -p "$1/$name/upper" "$1/$name/work"
  mount -t overlay overlay -o "lowerdir=/$folder,upperdir=$1/$name/upper,workdir=$1/$name/work" "/$folder"
done
exec sleep 3600
"""


@dataclass(frozen=True)
class Said:
    status: int
    stdout: str


class Bare:
    """A machine without a cluster: this one, with other folders where a cluster's are."""

    def __init__(self, folder: Path) -> None:
        command = ("nsenter", f"--net=/run/netns/{SPACE}", "unshare", "--mount", "--propagation=private")
        folder.mkdir()
        self.process = subprocess.Popen([*command, "sh", "-c", _SPACE, "sh", str(folder)], start_new_session=True)
        self.words = ("nsenter", f"--target={self.process.pid}", "--mount", "--net")
        time.sleep(2)
        assert self.process.poll() is None

    def run(self, command: Command, *, on_line: Callable[[str], None] | None = None) -> Said:
        done = subprocess.run(
            [*self.words, *command.argv], input=command.stdin, capture_output=True, text=True, check=False
        )
        if done.returncode not in command.accepted:
            raise UserError(Problem("master", done.stdout + done.stderr))
        return Said(done.returncode, done.stdout + done.stderr)

    def script(self, text: str, timeout_s: float) -> Said:
        # The binaries are where this machine has them.
        return self.run(Command(("sh", "-c", text.replace(FACTS_PATH, f"PATH={os.environ['PATH']}"))))

    def run_all(
        self, actions: Sequence[Quick], on_begin: Callable[[int], None], on_line: Callable[[str], None]
    ) -> None:
        for index, action in enumerate(actions):
            on_begin(index)
            if isinstance(action, File):
                self.write(action)
            elif isinstance(action, Removal):
                self.run(Command(("rm", "-f", str(action.path))))
            else:
                self.run(action, on_line=on_line)

    def write(self, file: File) -> None:
        make = 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
        self.run(Command(("sh", "-c", make, "sh", str(file.path), f"{file.mode:o}"), stdin=file.text))

    @contextmanager
    def running(self, log: Path, *command: str) -> Iterator[None]:
        with log.open("wb") as file:
            process = subprocess.Popen([*self.words, *command], stdout=file, stderr=file, stdin=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


FACTS_PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture
def lost(tmp_path: Path) -> tuple[dict[str, bytes], str, Path]:
    """The cluster's part of a backup, its encryption key, and an administrator's login; the cluster itself is gone."""
    root = tmp_path / "control-plane"
    root.mkdir()
    with open_server(root) as server:
        server.kubectl("create", "secret", "generic", "kept", "--from-literal=word=kept")
        pki = root / "etc/kubernetes/pki"
        tls = (f"--cacert={pki}/etcd/ca.crt", f"--cert={pki}/etcd/healthcheck-client.crt")
        login = (*tls, f"--key={pki}/etcd/healthcheck-client.key", f"--endpoints=https://{ADDRESS}:2379")
        server.run("env", "ETCDCTL_API=3", "etcdctl", *login, "snapshot", "save", str(tmp_path / "snapshot.db"))
        server.kubectl("create", "configmap", "later")
        halves = [f"{name}.{half}" for name in KEYS for half in ("crt", "key")]
        members = {f"etc/kubernetes/pki/{name}": (pki / name).read_bytes() for name in (*halves, "sa.key", "sa.pub")}
        members["snapshot.db"] = (tmp_path / "snapshot.db").read_bytes()
        encryption = yaml.safe_load((root / str(ENCRYPTION).lstrip("/")).read_text())
        shutil.copy(root / "etc/kubernetes/super-admin.conf", tmp_path / "admin.conf")
        key = encryption["resources"][0]["providers"][0]["secretbox"]["keys"][0]["secret"]
    shutil.rmtree(root)
    return members, key, tmp_path / "admin.conf"


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bare]:
    for words in (("netns", "add", SPACE), ("-n", SPACE, "link", "set", "lo", "up")):
        subprocess.run(["ip", *words], check=True)
    subprocess.run(["ip", "-n", SPACE, "address", "add", f"{ADDRESS}/24", "dev", "lo"], check=True)
    subprocess.run(["ip", "-n", SPACE, "route", "add", "default", "via", ADDRESS], check=True)
    made = Bare(tmp_path / "bare")
    yield made
    os.killpg(made.process.pid, signal.SIGKILL)
    made.process.wait()
    subprocess.run(["ip", "netns", "delete", SPACE], check=False)


def test_secrets_are_read_by_the_same_key_and_logins_hold_by_the_same_ca(
    lost: tuple[dict[str, bytes], str, Path], bare: Bare, tmp_path: Path
) -> None:
    members, key, admin = lost
    said = subprocess.run(["kubeadm", "version", "-o", "short"], capture_output=True, text=True, check=True).stdout
    cluster = Cluster(said.strip().lstrip("v"), "cluster", IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/12"))
    files = control_plane_files("master", ADDRESS, cluster, key)
    bare.write(files[-1])  # kubeadm says the name of etcd's image by it
    listed = bare.run(Command(("kubeadm", "config", "images", "list", f"--config={CONFIGURATION}"))).stdout
    image = next(line for line in listed.split() if "/etcd:" in line)
    bare.write(File(TOOLS / "image", image))
    bare.run(Command(("cp", shutil.which("etcdutl") or shutil.which("etcdctl") or "", str(OFFLINE))))
    bare.run(Command(("mkdir", "-p", "/var/lib/etcd/member")))
    bare.write(File(ENCRYPTION, "of a broken cluster"))

    def restored(*, replace: bool) -> tuple[State, str]:
        step = restore_step("master", ADDRESS, members, files, (), replace=replace)
        outcomes = run_steps([step], {"master": bare}, heard, apply=True)
        outcome = outcomes["master", "restore"]
        return outcome.state, str(outcome.error)

    state, told = restored(replace=False)
    assert (state, "--replace master" in told) == (State.FAILED, True)
    assert restored(replace=True) == (State.CHANGED, "None")
    assert restored(replace=False) == (State.FITS, "None")
    # As if it had been killed just before its end: it goes on, by itself.
    bare.write(RESTORING)
    assert restored(replace=False) == (State.CHANGED, "None")
    for path, there in ((BEGUN.path, 0), (RESTORING.path, 1)):
        assert bare.run(Command(("test", "-e", str(path)), accepted=frozenset({0, 1}))).status == there
    assert bare.run(Command(("sh", "-c", "ls -d /var/lib/etcd.before-*/member"))).status == 0
    with ExitStack() as stack:
        start(bare, tmp_path, stack)
        words = ("kubectl", f"--kubeconfig={admin}", f"--server=https://{ADDRESS}:6443", "--tls-server-name=cluster")
        deadline = time.monotonic() + 240
        while bare.run(Command((*words, "get", "--raw", "/readyz"), accepted=frozenset({0, 1}))).status:
            assert time.monotonic() < deadline, (tmp_path / "api.log").read_text()[-3000:]
            time.sleep(1)
        # A login that the lost cluster's CA has signed: that of every node is one.
        assert bare.run(Command((*words, "get", "secret", "kept", "-o=jsonpath={.data.word}"))).stdout == "a2VwdA=="
        later = bare.run(Command((*words, "get", "configmap", "later"), accepted=frozenset({1}))).stdout
        assert "NotFound" in later
        # A living one is refused.
        state, told = restored(replace=True)
        assert (state, "it is alive" in told) == (State.FAILED, True)


def start(bare: Bare, tmp_path: Path, stack: ExitStack) -> None:
    """Do what ``kubeadm init`` and kubelet do with what was restored."""
    for phase in PHASES:
        bare.run(Command(("kubeadm", "init", "phase", *phase.split(), f"--config={CONFIGURATION}")))
    pki = "/etc/kubernetes/pki/etcd"
    served = (f"--cert-file={pki}/server.crt", f"--key-file={pki}/server.key", "--name=master")
    client = ("--client-cert-auth", f"--trusted-ca-file={pki}/ca.crt", f"--listen-peer-urls=http://{ADDRESS}:2380")
    urls = f"https://127.0.0.1:2379,https://{ADDRESS}:2379"
    listen = (f"--listen-client-urls={urls}", f"--advertise-client-urls={urls}", "--data-dir=/var/lib/etcd")
    stack.enter_context(bare.running(tmp_path / "etcd.log", "etcd", *served, *client, *listen))
    pod = yaml.safe_load(bare.run(Command(("cat", "/etc/kubernetes/manifests/kube-apiserver.yaml"))).stdout)
    bare.run(Command(("mkdir", "-p", "/var/log/kubernetes/audit")))
    stack.enter_context(bare.running(tmp_path / "api.log", *pod["spec"]["containers"][0]["command"]))


def heard(step: Step, state: State, detail: str) -> None:
    print(f"{step.name}: {state} {detail}")
