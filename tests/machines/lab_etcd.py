"""A control plane's etcd in a laboratory machine: the real one, with certificates and files named as kubeadm does."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

from lab import LabMachine

IMAGE = "registry.lab/etcd:3.4"
_CERTIFICATES = """\
set -eu
mkdir -p /etc/kubernetes/pki/etcd && cd /etc/kubernetes/pki
authority() {
  openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
  openssl req -x509 -new -key "$1.key" -days 30 -subj "/CN=$2" -out "$1.crt"
  chmod 600 "$1.key"
}
authority ca kubernetes; authority front-proxy-ca front-proxy-ca; authority etcd/ca etcd-ca
openssl ecparam -name prime256v1 -genkey -noout -out sa.key && openssl ec -in sa.key -pubout -out sa.pub 2>/dev/null
for name in server healthcheck-client; do
  openssl ecparam -name prime256v1 -genkey -noout -out etcd/$name.key
  openssl req -new -key etcd/$name.key -subj "/CN=$name" -out etcd/$name.csr
  printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth\\n' >etcd/extensions
  openssl x509 -req -in etcd/$name.csr -CA etcd/ca.crt -CAkey etcd/ca.key -CAcreateserial -days 30 \\
    -extfile etcd/extensions -out etcd/$name.crt 2>/dev/null
done
mkdir -p /etc/kubernetes/manifests
printf 'spec:\\n  containers:\\n  - command: [etcd]\\n    image: %s\\n' "$1" >/etc/kubernetes/manifests/etcd.yaml
printf 'secret of the cluster\\n' >/etc/kubernetes/encryption.yaml
"""
_UNIT = """\
[Service]
ExecStart=/usr/bin/etcd --data-dir=/var/lib/etcd --listen-client-urls=https://127.0.0.1:2379 \
 --advertise-client-urls=https://127.0.0.1:2379 --client-cert-auth --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt \
 --cert-file=/etc/kubernetes/pki/etcd/server.crt --key-file=/etc/kubernetes/pki/etcd/server.key
"""
_ONLY_TAKES = b"""\
#!/bin/sh
case "$*" in *'snapshot status'* | *'snapshot restore'*) exec etcdctl snapshot --help ;; esac
exec etcdctl "$@"
"""


def install(machine: LabMachine) -> None:
    """Install etcd and containerd, and start etcd as a control plane's."""
    apt = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "--no-install-recommends", "install")
    machine.run("sh", "-c", "mkdir -p /etc/systemd/system && ln -s /dev/null /etc/systemd/system/etcd.service")
    machine.run("apt-get", "-q", "update")
    machine.run(*apt, "etcd-server", "etcd-client", "openssl", "containerd", timeout_s=300)
    machine.run("sh", "-c", _CERTIFICATES, "sh", IMAGE)
    (machine.root / "etc/systemd/system/lab-etcd.service").write_text(_UNIT)
    machine.run("systemctl", "start", "lab-etcd")


def etcdctl(machine: LabMachine, *words: str) -> str:
    """Ask the machine's etcd."""
    pki = "/etc/kubernetes/pki/etcd"
    login = (f"--cacert={pki}/ca.crt", f"--cert={pki}/server.crt", f"--key={pki}/server.key")
    return machine.run("env", "ETCDCTL_API=3", "etcdctl", "--endpoints=https://127.0.0.1:2379", *login, *words)


def give_image(machine: LabMachine) -> None:
    """Import an image with the machine's etcdctl in two parts, under the name that the manifest says.

    As in Kubernetes' images of etcd 3.6 its own etcdctl only takes snapshots: for the rest it shows its help and ends
    well. That of an older release, beside it, reads and restores them.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in ("usr", "usr/local", "usr/local/bin"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add(machine.root / "usr/bin/etcdctl", "usr/local/bin/etcdctl-3.4.23")
        entry = tarfile.TarInfo("usr/local/bin/etcdctl")
        entry.size, entry.mode = len(_ONLY_TAKES), 0o755
        tar.addfile(entry, io.BytesIO(_ONLY_TAKES))
    blobs = {}

    def blob(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    described = blob(layer.getvalue(), "layer.v1.tar")
    rootfs = {"type": "layers", "diff_ids": [described["digest"]]}
    config = blob(json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode(), "config.v1+json")
    manifest = blob(
        json.dumps({"schemaVersion": 2, "config": config, "layers": [described]}).encode(), "manifest.v1+json"
    )
    named = {**manifest, "annotations": {"io.containerd.image.name": IMAGE, "org.opencontainers.image.ref.name": "3.4"}}
    files = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [named]}).encode(),
        **blobs,
    }
    archive: Path = machine.root / "root/etcd.tar"
    with tarfile.open(archive, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    machine.run("ctr", "-n", "k8s.io", "images", "import", "/root/etcd.tar")
