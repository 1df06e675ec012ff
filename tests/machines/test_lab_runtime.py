"""A worker of a site: its containerd, and a pull from the site's registry by the site's CA and login."""

from __future__ import annotations

import hashlib
import json
import ssl
from pathlib import Path

import httpx
import pytest
from lab import Lab, LabError, LabMachine
from lab_sites import LabSite

from infra.site.engine import State
from infra.site.steps.kernel import FSTAB, SWAP_NOTE
from infra.site.steps.kubernetes import PACKAGES

pytestmark = pytest.mark.machine
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
PULL = """\
set -eu
password=$(cat /root/registry-password)
exec ctr content fetch --hosts-dir /etc/containerd/certs.d --user "mlops:$password" "$1"
"""
STEPS = ("base", "registry", "runtime", "kubernetes")
KUBERNETES = "kubernetes: {version: 1.33.5, packages: system}\n"
CONTROL = """\
Package: {name}
Version: {version}-1.1
Architecture: all
Maintainer: the tests
Description: stands for a release of {name}: nothing but its name and version
"""


def offer(machine: LabMachine, *versions: str) -> None:
    """Put Kubernetes' packages, empty ones, among those that the machine's apt can install."""
    for name in PACKAGES:
        for version in versions:
            folder = machine.root / f"root/{name}-{version}"
            (folder / "DEBIAN").mkdir(parents=True)
            (folder / "DEBIAN/control").write_text(CONTROL.format(name=name, version=version))
            machine.run("dpkg-deb", "--build", f"/root/{folder.name}", "/repo")
    machine.run("sh", "-c", "cd /repo && apt-ftparchive packages . >Packages && apt-get -q update")


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> LabSite:
    """A registry and a worker, provisioned."""
    made = LabSite(lab, tmp_path_factory.mktemp("checkout"), nodes={"worker": "control-plane, worker"}, more=KUBERNETES)
    offer(made.machines["worker"], "1.33.4", "1.33.5", "1.33.6")
    (made.machines["worker"].root / "etc/fstab").write_text(
        "/dev/sda1 / ext4 defaults 0 1\n/dev/sda2 none swap sw 0 0\n"
    )
    # The share's mount needs a kernel with cifs, and a cluster the real packages: all but those.
    wanted = [step for step in made.steps() if step.machine != "storage" and step.name in STEPS]
    outcomes = made.run(apply=True, steps=wanted)
    assert {key: item.error for key, item in outcomes.items() if item.error} == {}
    assert outcomes["worker", "runtime"].state is State.CHANGED
    assert {item.state for item in made.run(apply=True, steps=wanted).values()} == {State.FITS}
    return made


def push_image(site: LabSite) -> str:
    """Push an image of nothing but its configuration, and return its name with its digest."""
    login = ("mlops", (site.home / "registry-password").read_text().strip())
    trusted = ssl.create_default_context(cafile=str(site.home / "site/authority/ca.crt"))
    address = f"{site.machines['registry'].address}:5000"
    with httpx.Client(base_url=f"https://{address}", verify=trusted, auth=login) as client:
        data = json.dumps(
            {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
        ).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        opened = client.post("/v2/tried/blobs/uploads/")
        client.put(f"{opened.headers['location']}&digest={digest}", content=data).raise_for_status()
        config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(data)}
        image = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}
        put = client.put("/v2/tried/manifests/one", content=json.dumps(image), headers={"content-type": MANIFEST})
        put.raise_for_status()
    return f"{address}/tried@{put.headers['docker-content-digest']}"


def test_containerd_pulls_from_the_sites_registry(site: LabSite) -> None:
    worker, image = site.machines["worker"], push_image(site)
    (worker.root / "root/pull").write_text(PULL)
    login = worker.root / "root/registry-password"
    login.touch(0o600)
    login.write_text((site.home / "registry-password").read_text())
    assert image.partition("@")[2] in worker.run("sh", "/root/pull", image)
    login.write_text("wrong")
    worker.run("ctr", "content", "rm", image.partition("@")[2])
    with pytest.raises(LabError, match=r"401|authorization failed"):
        worker.run("sh", "/root/pull", image)
    # Without what the step has written, the registry's certificate is nobody's.
    login.write_text((site.home / "registry-password").read_text())
    with pytest.raises(LabError, match="unknown authority"):
        worker.run("sh", "-c", "sed 's, --hosts-dir [^ ]*,,' /root/pull | sh -s " + image)


def test_containerd_has_read_its_configuration(site: LabSite) -> None:
    read = site.machines["worker"].run("containerd", "config", "dump")
    assert "SystemdCgroup = true" in read
    assert 'config_path = "/etc/containerd/certs.d"' in read
    assert 'sandbox_image = "registry.k8s.io/pause:3.10"' in read


def test_swap_would_not_come_back(site: LabSite) -> None:
    worker = site.machines["worker"]
    assert worker.run("cat", str(FSTAB)).splitlines() == [
        "/dev/sda1 / ext4 defaults 0 1",
        f"{SWAP_NOTE}/dev/sda2 none swap sw 0 0",
    ]
    assert worker.run("readlink", "/etc/systemd/system/swap.target").strip() == "/dev/null"


def test_a_dead_containerd_is_started_again_and_the_machine_comes_back_after_a_power_cut(site: LabSite) -> None:
    worker = site.machines["worker"]
    step = [item for item in site.steps() if (item.machine, item.name) == ("worker", "runtime")]
    worker.run("systemctl", "stop", "containerd")
    assert site.run(apply=False, steps=step)["worker", "runtime"].changes[0].why == "is inactive"
    assert site.run(apply=True, steps=step)["worker", "runtime"].state is State.CHANGED
    worker.cut_power()
    worker.boot()
    worker.wait()
    assert site.run(apply=True, steps=step)["worker", "runtime"].state is State.FITS


def test_a_registry_with_another_address_is_written_and_read_without_a_restart(site: LabSite) -> None:
    worker = site.machines["worker"]
    files = Path("etc/containerd/certs.d") / f"{site.machines['registry'].address}:5000"
    (worker.root / files / "ca.crt").unlink()
    started = worker.run("systemctl", "show", "-p", "ExecMainStartTimestampMonotonic", "containerd")
    step = [item for item in site.steps() if (item.machine, item.name) == ("worker", "runtime")]
    outcome = site.run(apply=True, steps=step)["worker", "runtime"]
    assert [item.what for item in outcome.changes] == [f"write /{files}/ca.crt"]
    assert worker.run("systemctl", "show", "-p", "ExecMainStartTimestampMonotonic", "containerd") == started


def test_the_release_is_pinned_and_an_upgrade_of_the_system_leaves_it(site: LabSite) -> None:
    worker = site.machines["worker"]
    worker.run("sh", "-c", "DEBIAN_FRONTEND=noninteractive apt-get -q -y upgrade")
    shown = worker.run("dpkg-query", "--show", "--showformat", "${Version} ", *PACKAGES)
    assert shown.split() == ["1.33.5-1.1"] * 3
    assert sorted(worker.run("apt-mark", "showhold").split()) == sorted(PACKAGES)


def test_another_release_is_told_and_left_to_people(site: LabSite) -> None:
    text = site.file.read_text()
    site.file.write_text(text.replace("1.33.5", "1.33.6"))
    step = [item for item in site.steps() if (item.machine, item.name) == ("worker", "kubernetes")]
    outcome = site.run(apply=True, steps=step)["worker", "kubernetes"]
    site.file.write_text(text)
    assert outcome.error is not None
    (problem,) = outcome.error.problems
    assert "kubelet is 1.33.5-1.1" in problem.what
    assert "kubernetes.version" in problem.remedy
    assert "1.33.5-1.1" in site.machines["worker"].run("dpkg-query", "--show", "kubelet")


def test_an_endpoint_is_a_name_that_every_machine_knows(site: LabSite) -> None:
    for name in ("worker", "registry"):
        said = site.machines[name].run("getent", "hosts", "cluster")
        assert said.split() == [site.machines["worker"].address, "cluster"]
