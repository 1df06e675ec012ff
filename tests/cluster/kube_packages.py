"""Debian packages of the real kubelet, kubeadm and kubectl, laid out as the project's own are, for a lab's machines."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

PLUGINS = Path("/usr/lib/cni")
_CONTROL = """\
Package: {name}
Version: {version}
Architecture: amd64
Maintainer: the tests
Depends: {depends}
Description: the real {name}
"""
# kubeadm writes what these name: https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/kubelet-integration/
_UNIT = """\
[Unit]
Description=kubelet
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
"""
_DROP_IN = """\
[Service]
Environment="BOOTSTRAP=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf"
Environment="KUBECONFIG=--kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="CONFIG=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $BOOTSTRAP $KUBECONFIG $CONFIG $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
"""


def make_packages(binaries: Path, version: str, folder: Path) -> None:
    """Put packages of one release into a folder that apt reads.

    Args:
        binaries: folder of the three. version: of the release, as 1.33.13. folder: gets an index as well.
    """
    release = f"{version}-1.1"
    for name in ("kubelet", "kubeadm", "kubectl"):
        root = folder / f"{name}-{version}"
        (root / "usr/bin").mkdir(parents=True)
        shutil.copy(binaries / name, root / "usr/bin")
        if name == "kubelet":
            drop_in = root / "usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf"
            drop_in.parent.mkdir(parents=True)
            drop_in.write_text(_DROP_IN)
            drop_in.parent.with_suffix("").write_text(_UNIT)
            (root / "etc/kubernetes/manifests").mkdir(parents=True)
        _build(root, name, release, "kubernetes-cni" if name == "kubelet" else "libc6")
    plugins = folder / "kubernetes-cni-1"
    if not (folder / "kubernetes-cni_1.6.0-1.1_amd64.deb").exists():
        shutil.copytree(PLUGINS, plugins / "opt/cni/bin")
        _build(plugins, "kubernetes-cni", "1.6.0-1.1", "libc6")
    (folder / "Packages").write_text("\n".join(_entry(path) for path in sorted(folder.glob("*.deb"))))


def _entry(package: Path) -> str:
    """Return a package's lines in the index that apt reads."""
    command = ["dpkg-deb", "--field", str(package)]
    control = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    with package.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return f"{control}Filename: ./{package.name}\nSize: {package.stat().st_size}\nSHA256: {digest}\n"


def _build(root: Path, name: str, version: str, depends: str) -> None:
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(_CONTROL.format(name=name, version=version, depends=depends))
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(root), str(root.parent)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    shutil.rmtree(root)
