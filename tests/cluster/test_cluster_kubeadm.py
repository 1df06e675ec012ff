"""What we render is read by the real kubeadm, which must be on the path: ``pytest -m cluster``."""

from __future__ import annotations

import shutil
import subprocess
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from infra.kubeadm.configuration import Cluster, init_configuration, join_configuration

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def kubeadm() -> str:
    found = shutil.which("kubeadm")
    if found is None:
        pytest.skip("no kubeadm on PATH")
    return found


@pytest.fixture
def cluster(kubeadm: str) -> Cluster:
    """Of kubeadm's own version: it refuses those that are newer than itself."""
    said = subprocess.run([kubeadm, "version", "-o", "short"], capture_output=True, text=True, check=True).stdout
    return Cluster(said.strip().lstrip("v"), "cluster", IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/12"))


def validated(kubeadm: str, path: Path, text: str) -> subprocess.CompletedProcess[str]:
    path.write_text(text)
    command = [kubeadm, "config", "validate", "--config", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_kubeadm_takes_every_file(kubeadm: str, cluster: Cluster, tmp_path: Path) -> None:
    token, ca_hash = "abcdef.0123456789abcdef", "sha256:" + "0" * 64
    for text in (
        init_configuration(cluster, "master", "192.168.10.50"),
        join_configuration(cluster, "worker", "192.168.10.101", token, ca_hash),
    ):
        done = validated(kubeadm, tmp_path / "kubeadm.yaml", text)
        assert (done.returncode, done.stdout.strip()) == (0, "ok"), done.stderr
        # Unknown and deprecated keys are only warned of.
        assert "unknown field" not in done.stderr
        assert "deprecated" not in done.stderr


def test_kubeadm_refuses_what_is_wrong(kubeadm: str, cluster: Cluster, tmp_path: Path) -> None:
    text = init_configuration(cluster, "master", "192.168.10.50").replace("podSubnet", "podNet")
    done = validated(kubeadm, tmp_path / "kubeadm.yaml", text)
    assert done.returncode != 0
    assert "podNet" in done.stderr


def test_certificates_name_the_endpoint(kubeadm: str, cluster: Cluster, tmp_path: Path) -> None:
    text = init_configuration(cluster, "master", "192.168.10.50")
    folder = tmp_path / "pki"
    text = text.replace(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n",
        f"apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\ncertificatesDir: {folder}\n",
    )
    path = tmp_path / "kubeadm.yaml"
    path.write_text(text)
    subprocess.run([kubeadm, "init", "phase", "certs", "all", "--config", str(path)], check=True, capture_output=True)
    command = ["openssl", "x509", "-in", str(folder / "apiserver.crt"), "-noout", "-ext", "subjectAltName"]
    named = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in ("DNS:cluster", "DNS:master", "IP Address:192.168.10.50"):
        assert name in named
