"""What a real API server keeps, and what it writes down, by our files: ``pytest -m cluster``, see ``api_server.py``."""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path, PurePosixPath

import pytest
import yaml
from api_server import ADDRESS, Server, open_server

from infra.kubeadm.configuration import AUDIT_LOG, ENCRYPTION, Cluster, join_configuration
from infra.kubeadm.flannel import NAMESPACE, flannel_manifest
from infra.kubeadm.joining import read_token, token_command

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with open_server(tmp_path_factory.mktemp("control-plane")) as made:
        yield made


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
    assert token.partition(".")[2] not in " ".join(command.argv)
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
    # Its secret half is nowhere on the control plane: not in the audit log, and in etcd it is encrypted.
    assert holders(server.root, token.partition(".")[2]) == set()
    assert holders(server.root, token.partition(".")[0])  # the half that is its name is found by the same search
    path.write_text(join_configuration(cluster, "worker", "192.168.10.101", token, "sha256:" + "0" * 64))
    with pytest.raises(RuntimeError, match="none of the public keys"):
        server.run(*discover)


def holders(root: Path, secret: str) -> set[str]:
    """The files below a folder that hold a secret."""
    search = ["grep", "-rlaF", "--devices=skip", "-f", "-", str(root)]
    found = subprocess.run(search, input=secret, capture_output=True, text=True, check=False).stdout
    return {line.removeprefix(str(root)) for line in found.splitlines()}


def test_the_key_of_secrets_is_in_its_file_alone(server: Server) -> None:
    text = (server.root / str(ENCRYPTION).lstrip("/")).read_text()
    key = yaml.safe_load(text)["resources"][0]["providers"][0]["secretbox"]["keys"][0]["secret"]
    write_down(server, "Secret", "three", "canary-51aa")
    assert holders(server.root, key) == {str(ENCRYPTION)}
    assert holders(server.root, "canary-51aa") == set()


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
