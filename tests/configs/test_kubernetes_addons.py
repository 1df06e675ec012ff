"""What the site's file may say of labels, GPUs, add-ons and another pod network."""

from __future__ import annotations

from pathlib import Path

import pytest
from site_files import told, write

from configs.kubernetes import NamedManifest
from configs.site import load_site

HEAD = "network: {cidr: 192.168.10.0/24, gateway: 192.168.10.1}\nhosts:\n"
ONE = "  one: {{address: 192.168.10.20, roles: [control-plane, worker]{more}}}\n"


def site(folder: Path, more: str = "", kubernetes: str = "") -> Path:
    return write(folder, f"{HEAD}{ONE.format(more=more)}kubernetes: {{version: 1.33.5{kubernetes}}}\n")


def test_everything_may_be_left_out(tmp_path: Path) -> None:
    found = load_site(site(tmp_path))
    assert found.kubernetes is not None
    assert found.kubernetes.addons == ("metrics-server", "dashboard", "gpu")
    assert (found.kubernetes.network, found.kubernetes.csi_smb) == ("flannel", None)
    assert (found.hosts["one"].labels, found.hosts["one"].gpu) == ({}, True)


def test_labels_and_another_network(tmp_path: Path) -> None:
    digest = "0" * 64
    named = f"{{manifest: manifests/calico.yaml, sha256: '{digest}'}}"
    path = site(tmp_path, ", labels: {rack: b2, example.org/disk: ''}", f", addons: [], network: {named}")
    found = load_site(path)
    assert found.kubernetes is not None
    assert found.kubernetes.network == NamedManifest(manifest=Path("manifests/calico.yaml"), sha256=digest)
    assert found.hosts["one"].labels == {"rack": "b2", "example.org/disk": ""}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("{'a b': x}", "'a b' is no label"),
        ("{kubernetes.io/hostname: x}", "a label of Kubernetes' own"),
        ("{node-role.kubernetes.io/gpu: ''}", "a label of Kubernetes' own"),
        ("{rack: b 2}", "'b 2' of rack"),
        ("{-rack: b}", "'-rack' is no label"),
    ],
)
def test_what_is_no_label_is_told(tmp_path: Path, labels: str, said: str) -> None:
    ((where, what),) = told(site(tmp_path, f", labels: {labels}")).items()
    assert where == "4 hosts.one.labels"
    assert said in what


def test_only_nodes_have_labels(tmp_path: Path) -> None:
    two = "  two: {address: 192.168.10.30, roles: [registry], labels: {rack: b}}\n"
    path = write(tmp_path, f"{HEAD}{ONE.format(more='')}{two}kubernetes: {{version: 1.33.5}}\n")
    assert "two is none" in told(path)["5 hosts.two.labels"]


def test_a_manifest_is_named_with_its_digest(tmp_path: Path) -> None:
    said = told(site(tmp_path, kubernetes=", csi_smb: {manifest: smb.yaml, sha256: abc}"))
    assert any("csi_smb.sha256" in where for where in said)
