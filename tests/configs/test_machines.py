"""The machines of a site: the shipped example is valid, and what does not go together is told whole, with its lines."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from site_files import SHIPPED, told, write

from configs.machines import Vm
from configs.problems import UserError
from configs.site import load_site

IMAGE = f"vm_image: {{file: /srv/debian.img, sha256: {'a' * 64}}}\n"
NETWORK = "network: {cidr: 192.168.10.0/24, gateway: 192.168.10.1}\n"
MAIN = "hosts:\n  main: {address: 192.168.10.20, vms: qemu, bridge: br0}\n"


def vm(name: str, last: int, **changed: object) -> str:
    """A line of `vms:`."""
    values = {"host": "main", "address": f"192.168.10.{last}", "memory_mb": 4096, "disk_gb": 20, "cpus": 2}
    return f"  {name}: {{{', '.join(f'{key}: {value}' for key, value in {**values, **changed}.items())}}}\n"


def test_the_example_of_two_desktops_is_valid() -> None:
    site = load_site(SHIPPED.with_name("site-thesis.yaml"))
    assert list(site.hosts) == ["mainserver", "research"]
    assert site.vms["registry"] == Vm(
        host="mainserver",
        address=IPv4Address("192.168.10.60"),
        memory_mb=11264,
        disk_gb=100,
        cpus=4,
        roles=("registry",),
    )
    # Provisioned to its end, it has a platform, whose data has a place.
    assert site.cluster is not None
    assert site.cluster.state.node is not None
    assert "worker" in site.vms[site.cluster.state.node].roles


def test_everything_that_clashes_is_told_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        NETWORK
        + "hosts:\n"
        + "  main: {address: 192.168.10.20, vms: qemu, bridge: br0}\n"
        + "  other: {address: 192.168.11.30, roles: [worker, worker]}\n"
        + "vms:\n"
        + vm("one", 20, mac="52:54:00:00:00:01")
        + vm("two", 1, mac="52:54:00:00:00:01", host="other")
        + vm("other", 255, host="mian", roles="[control-plane]", cpus=1, memory_mb=1024)
        + vm("three", 43, roles="[control-plane, registr]", disk_gb=0)
        + IMAGE,
    )
    said = told(path)
    assert set(said) == {
        "5 hosts.other.address",
        "5 hosts.other.roles",
        "7 vms.one.address",
        "8 vms.two.address",
        "8 vms.two.mac",
        "8 vms.two.host",
        "9 vms.other",
        "9 vms.other.address",
        "9 vms.other.host",
        "9 vms.other.cpus",
        "9 vms.other.memory_mb",
        "10 vms.three.roles.1",
        "10 vms.three.disk_gb",
    }
    assert "is that of main as well" in said["7 vms.one.address"]
    assert "is that of one as well" in said["8 vms.two.mac"]
    assert "is the gateway's" in said["8 vms.two.address"]
    assert "hosts there: main, other" in said["9 vms.other.host"]
    assert "`vms: virtualbox`" in said["8 vms.two.host"]
    assert "192.168.10.0/24" in said["5 hosts.other.address"]


def test_a_host_has_memory_for_its_vms_and_for_itself(tmp_path: Path) -> None:
    text = NETWORK + MAIN.replace("qemu", "qemu, memory_mb: SIZE") + "vms:\n" + vm("one", 21) + vm("two", 22) + IMAGE
    assert load_site(write(tmp_path, text.replace("SIZE", str(2 * 4096 + 2048)))).vms.keys() == {"one", "two"}
    assert told(write(tmp_path, text.replace("SIZE", str(2 * 4096 + 2047)))) == {
        "4 hosts.main.memory_mb": "10239 MB are fewer than the 8192 of its VMs and 2048 of its own"
        " give VMs less memory, or move one to another host"
    }


@pytest.mark.parametrize(
    ("network", "key"),
    [
        ("cidr: 10.244.7.0/24, gateway: 10.244.7.1", "cidr"),
        ("cidr: 192.168.10.0/24, gateway: 192.168.11.1", "gateway"),
        ("cidr: 192.168.10.0/24, gateway: 192.168.10.1, pods: 192.168.0.0/16", "pods"),
        ("cidr: 192.168.10.0/24, gateway: 192.168.10.1, services: 10.244.0.0/20", "services"),
        ("cidr: 192.168.10.3/24, gateway: 192.168.10.1", "cidr"),
    ],
)
def test_networks_that_do_not_fit_are_told(tmp_path: Path, network: str, key: str) -> None:
    assert list(told(write(tmp_path, f"network: {{{network}}}\n"))) == [f"2 network.{key}"]


def test_machines_need_a_network_and_workers_a_cluster(tmp_path: Path) -> None:
    said = told(write(tmp_path, MAIN + "vms:\n" + vm("one", 21, roles="[worker]") + IMAGE))
    assert list(said) == ["1 network", "5 vms.one.roles"]
    assert "[control-plane]" in said["5 vms.one.roles"]


def test_one_machine_of_a_site_holds_a_role_that_is_single(tmp_path: Path) -> None:
    lines = [vm(f"{role}{last}", last, roles=f"[{role}]") for role in ("storage", "control-plane") for last in (5, 6)]
    unique = [line.replace("192.168.10.", "192.168.10.1", 1) if "control" in line else line for line in lines]
    said = told(write(tmp_path, NETWORK + MAIN + "vms:\n" + "".join(unique) + IMAGE))
    assert list(said) == ["9 vms.control-plane6.roles", "7 vms.storage6.roles", "1 storage.kind"]


@pytest.mark.parametrize("name", ["Main", "main_1", "-main", "m" * 64])
def test_a_name_is_one_that_kubernetes_takes(tmp_path: Path, name: str) -> None:
    said = told(write(tmp_path, NETWORK + f"hosts:\n  {name}: {{address: 192.168.10.20}}\n"))
    assert len(said) == 1
    assert f"hosts.{name}" in next(iter(said))


def test_vms_need_an_image_and_something_to_be_bridged_to(tmp_path: Path) -> None:
    said = told(write(tmp_path, NETWORK + MAIN.replace(", bridge: br0", "") + "vms:\n" + vm("one", 21)))
    assert list(said) == ["4 hosts.main.bridge", "1 vm_image"]
    assert "and `sha256:`" in said["1 vm_image"]


@pytest.mark.parametrize(
    ("image", "key", "right"),
    [
        ("{url: 'ftp://a/b', sha256: SUM}", "2 vm_image.url", "https"),
        ("{url: 'https://a/b', file: /b, sha256: SUM}", "2 vm_image", "one of `url:` and `file:`"),
        ("{sha256: SUM}", "2 vm_image", "one of `url:` and `file:`"),
        ("{file: /b}", "2 vm_image.sha256", "add `sha256:`"),
        ("{file: b, sha256: SUM}", "2 vm_image.file", "^/"),
        ("{file: /b, sha256: abc}", "2 vm_image.sha256", "64"),
    ],
)
def test_an_image_has_one_source_and_a_checksum(tmp_path: Path, image: str, key: str, right: str) -> None:
    said = told(write(tmp_path, f"vm_image: {image.replace('SUM', 'a' * 64)}\n"))
    assert list(said) == [key]
    assert right in said[key]


def test_a_multicast_mac_is_refused(tmp_path: Path) -> None:
    said = told(write(tmp_path, NETWORK + MAIN + "vms:\n" + vm("one", 21, mac="53:54:00:00:00:01")))
    assert list(said) == ["6 vms.one.mac"]
    assert "multicast" in said["6 vms.one.mac"]


def test_who_serves_the_share_or_the_registry_is_where_their_sections_say(tmp_path: Path) -> None:
    machines = vm("disk", 40, roles="[storage]") + vm("images", 60, roles="[registry]") + IMAGE
    share = "storage: {kind: smb, url: 'smb://mlops@192.168.10.41/data/dvc', password: {environment: SHARE}}\n"
    registry = "registry: {address: '192.168.10.61:5000', user: mlops, password: {environment: REGISTRY}}\n"
    path = tmp_path / "site.yaml"
    path.write_text(share + registry + NETWORK + MAIN + "vms:\n" + machines)
    assert told(path) == {
        "1 storage.url": "leads to 192.168.10.41, but disk is to serve the share"
        " smb://mlops@192.168.10.40/sambashare/dvc",
        "2 registry.address": "leads to 192.168.10.61, but images is to be the registry 192.168.10.60:5000",
    }
    path.write_text(share.replace(".41", ".40") + NETWORK + MAIN + "vms:\n" + machines)
    assert list(told(path)) == ["1 registry"]
    path.write_text(share.replace(".41", ".40") + registry.replace(".61", ".60") + NETWORK + MAIN + "vms:\n" + machines)
    assert load_site(path).registry is not None


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{version: '1.33'}", "name one release, as 1.33.5"),
        ("{version: 1.30.4}", "1.31 or newer"),
        ("{version: v1.33.5}", "name one release"),
        ("{version: 1.33.5, endpoint: master}", "is the name of machine master as well"),
        ("{version: 1.33.5, images: 'https://registry:5000/kubernetes'}", "without https://"),
        ("{version: 1.33.5, images: 'registry:5000'}", "write registry and prefix"),
        ("{version: 1.33.5, kubelet: {cgroupDriver: cgroupfs}}", "leave cgroupDriver out"),
        ("{version: 1.33.5, cni: weave}", "is not a known key"),
    ],
)
def test_what_is_wrong_with_the_kubernetes_asked_for(tmp_path: Path, section: str, said: str) -> None:
    text = SHIPPED.with_name("site-thesis.yaml").read_text()
    path = tmp_path / "site.yaml"
    path.write_text(re.sub(r"kubernetes:\n .*\n", f"kubernetes: {section}\n", text))
    with pytest.raises(UserError) as caught:
        load_site(path)
    (problem,) = caught.value.problems
    assert "kubernetes" in problem.where
    assert said in f"{problem.what} {problem.remedy}"
