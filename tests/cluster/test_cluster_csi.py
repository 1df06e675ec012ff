"""The share through csi-driver-smb on a real cluster: its volume binds, and a mount that fails is told in one sentence.

Needs the driver on all nodes; whether their kernels know cifs decides what a mount says.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_gangs import until
from lightkube.resources.core_v1 import PersistentVolume, PersistentVolumeClaim, Secret
from lightkube.resources.storage_v1 import CSINode
from troubles import IMAGE, job
from watching import Watched

from benchmarks.kubernetes_lab import own_address
from configs.cluster import Cluster
from configs.secret import PasswordReference
from configs.storage import SmbStorage
from infra.kubernetes.apply import apply
from infra.kubernetes.diagnosis.record import Category
from infra.kubernetes.manifests import SHARE
from infra.kubernetes.platform.share import CSI_DRIVER, manifests, share_volumes
from infra.kubernetes.platform.wanted import Wanted

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
PASSWORD = "PASSWORD-7731"


@pytest.fixture
def wanted(watched: Watched) -> Iterator[Wanted]:
    """A share that nobody serves, with its volume, claim and login."""
    with_driver = [
        node.metadata.name
        for node in watched.client.list(CSINode)
        if CSI_DRIVER in {driver.name for driver in (node.spec.drivers or ())}
    ]
    if not with_driver:
        pytest.skip(f"{CSI_DRIVER} runs on no node")
    with socket.socket() as closed:
        host = own_address(str(watched.client.config.cluster.server))
        closed.bind((host, 0))
        url = f"smb://alice@{host}:{closed.getsockname()[1]}/sambashare/dvc"
        share = SmbStorage(url=url, password=PasswordReference(file=Path("/nowhere")))
        wanted = Wanted(Cluster(namespace=watched.namespace), IMAGE, share=share, csi_smb=True)
        login = {"username": "alice", "password": PASSWORD}
        made = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SHARE, "namespace": watched.namespace}}
        apply(watched.client, [{**made, "stringData": login}, *manifests(wanted)])
        yield wanted
    watched.client.delete(PersistentVolumeClaim, SHARE, namespace=watched.namespace)
    watched.client.delete(Secret, SHARE, namespace=watched.namespace)
    for volume in watched.client.list(PersistentVolume):
        if volume.spec.claimRef and volume.spec.claimRef.namespace == watched.namespace:
            watched.client.delete(PersistentVolume, volume.metadata.name)


def test_the_share_binds_and_its_failing_mount_is_told(watched: Watched, wanted: Wanted) -> None:
    claim = watched.client.get(PersistentVolumeClaim, SHARE, namespace=watched.namespace)
    until(lambda: _phase(watched) == "Bound", 60)
    assert claim.spec.accessModes == ["ReadWriteMany"]
    volumes, mounts = share_volumes(wanted.share, csi_smb=True)
    watched.make(job(watched.run, "csi-share", volumes=volumes, mounts=mounts))
    found = watched.told(Category.MOUNT_FAILED, "cannot mount volume")
    assert any(reason in found.what for reason in ("cifs", "does not answer")), found.text()
    assert "\n" not in found.what
    assert PASSWORD not in found.text() + repr(watched.snapshot)


def _phase(watched: Watched) -> str:
    return str(watched.client.get(PersistentVolumeClaim, SHARE, namespace=watched.namespace).status.phase)
