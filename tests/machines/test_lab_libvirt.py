"""libvirt itself, with QEMU by TCG, on a host that ssh reaches: VMs that boot, are changed, shut down and removed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypervisors import IMAGE, Host, hypervisor, told_by_guest
from lab import LabError, run
from lab_vms import host_layers
from small_guest import small_guest

from infra.machines.commands import Command
from infra.site.engine import State
from infra.vms.driver import Power
from infra.vms.libvirt import Libvirt, disk_path
from infra.vms.seed import PACKAGES as SEED_PACKAGES
from infra.vms.seed import seed_actions

pytestmark = [pytest.mark.machine, pytest.mark.hypervisor]
# A container has no control groups and no security labels to give away.
CONFIGURATION = 'cgroup_controllers = []\nnamespaces = []\nsecurity_driver = "none"\n'


@pytest.fixture(scope="module")
def host(machines_can_be_made: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("libvirt")
    driver = Libvirt("tcg")
    with hypervisor(folder, host_layers((*driver.packages, *SEED_PACKAGES)), driver) as opened:
        with (opened.there.root / "etc/libvirt/qemu.conf").open("a") as file:
            file.write(CONFIGURATION)
        opened.there.run("systemctl", "restart", "libvirtd")
        run("cp", str(small_guest()), f"{opened.there.root}{IMAGE}")
        yield opened


@pytest.fixture
def spare(host: Host) -> Iterator[Host]:
    """Yield the host with another VM in mind, which is gone afterwards; nobody waits for it to boot."""
    vm = replace(host.vm, name="spare", mac="52:54:00:12:34:57", address=host.vm.address.replace(".200", ".201"))
    other = Host(host.there, host.reached, host.driver, vm)
    yield other
    host.there.run("sh", "-c", "virsh destroy spare; virsh undefine spare; rm -rf /var/lib/mlops/vms/spare")


def virsh(host: Host, *words: str) -> str:
    return host.there.run("virsh", "--quiet", "--connect", "qemu:///system", *words).strip()


def test_a_vm_is_made_and_boots_and_a_second_run_does_nothing(host: Host) -> None:
    outcome = host.ensure()
    assert (outcome.state, outcome.error) == (State.CHANGED, None)
    assert [change.what for change in outcome.changes] == ["make VM worker", "start VM worker"]
    assert host.ensure().state is State.FITS
    assert "enable" in virsh(host, "dominfo", "worker").partition("Autostart:")[2].split("\n")[0]
    told = told_by_guest(host)
    assert (told["name"], told["cpus"], told["vda"]) == ("worker", "1", str(3 << 30))


def test_what_needs_the_vm_off_is_told_while_it_runs_and_not_done(host: Host) -> None:
    assert host.ensure(memory_mb=640, disk_gb=4).state is State.FITS
    outcome = host.pending(memory_mb=640, disk_gb=4)
    assert outcome.state is State.FAILED
    assert "memory is 512 MiB, not 640 MiB; it runs" in str(outcome.error)
    assert "has 3 GiB, 4 are wanted; it runs" in str(outcome.error)
    assert host.pending().state is State.FITS


def test_its_power_button_shuts_it_down(host: Host) -> None:
    host.do(host.driver.stop(host.vm))
    assert virsh(host, "domstate", "--reason", "worker") == "shut off (shutdown)"


def test_memory_cpus_and_a_larger_disk_come_while_it_is_off_and_what_others_added_stays(host: Host) -> None:
    data = "/var/lib/libvirt/images/data.qcow2"
    host.there.run("qemu-img", "create", "-q", "-f", "qcow2", data, "1G")
    virsh(host, "attach-disk", "worker", data, "vdc", "--config", "--subdriver", "qcow2")
    host.vm = replace(host.vm, memory_mb=640, cpus=2, disk_gb=4)
    outcome = host.ensure()
    assert outcome.error is None
    assert [change.what for change in outcome.changes] == [
        "define VM worker anew",
        "make the disk of VM worker larger",
        "start VM worker",
    ]
    assert host.ensure().state is State.FITS
    told = told_by_guest(host)
    assert (told["cpus"], told["vda"], told["vdc"]) == ("2", str(4 << 30), str(1 << 30))
    assert 512 * 1024 < int(told["memory"].split()[0]) < 640 * 1024


def test_a_disk_is_never_made_smaller(host: Host) -> None:
    outcome = host.pending(disk_gb=3)
    assert outcome.state is State.FAILED
    assert "a disk is never made smaller" in str(outcome.error)
    assert host.observe().disk_bytes == 4 << 30


def test_after_a_power_cut_of_the_host_the_vm_runs_again(host: Host) -> None:
    host.there.cut_power()
    host.there.boot()
    host.there.wait()
    host.reached.wait_until_reachable(60)
    deadline = time.monotonic() + 120
    while host.observe().power is not Power.RUNNING and time.monotonic() < deadline:
        time.sleep(1)
    assert host.ensure().state is State.FITS


def test_destroy_removes_what_is_the_vms_own_and_no_other_disk(host: Host) -> None:
    beside = f"{host.vm.folder}/mine.qcow2"
    host.there.run("qemu-img", "create", "-q", "-f", "qcow2", beside, "1M")
    host.do(host.driver.destroy(host.vm))
    assert host.observe().power is Power.ABSENT
    assert host.there.run("ls", str(host.vm.folder)).split() == ["mine.qcow2"]
    host.there.run("test", "-e", "/var/lib/libvirt/images/data.qcow2")
    assert any("left in /var/lib/mlops/vms/worker" in line and "mine.qcow2" in line for line in host.told)
    # Again: nothing is there any more, and that is no error.
    host.do(host.driver.destroy(host.vm))


@pytest.mark.parametrize("done", [0, 1, 2])
def test_what_a_killed_run_left_half_made_is_completed(spare: Host, done: int) -> None:
    vm, folder = spare.vm, spare.vm.folder
    spare.there.run("install", "-d", "-m", "0711", str(folder))
    spare.there.run("sh", "-c", f"echo half >{folder}/disk.qcow2.new; echo half >{folder}/disk.qcow2.layer")
    if done:
        spare.do((*seed_actions(vm, spare.driver.readers), *spare.driver.create(vm)[:done]))
    before = spare.there.run("stat", "-c", "%i", str(disk_path(vm))) if done else ""
    outcome = spare.ensure()
    assert (outcome.state, outcome.error) == (State.CHANGED, None)
    assert spare.ensure().state is State.FITS
    if done:
        # The disk that was there: it could have had data.
        assert spare.there.run("stat", "-c", "%i", str(disk_path(vm))) == before
    assert sorted(spare.there.run("ls", str(folder)).split()) == ["disk.qcow2", "meta-data", "seed.iso"]


def test_another_vm_of_its_name_is_left_alone(spare: Host) -> None:
    text = "<domain type='qemu'><name>spare</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>"
    spare.reached.run(Command(("virsh", "define", "/dev/stdin"), stdin=text))
    outcome = spare.ensure()
    assert outcome.state is State.FAILED
    assert "main has another VM of this name" in str(outcome.error)
    with pytest.raises(Exception, match="it stays as it is"):
        spare.do(spare.driver.destroy(spare.vm))
    assert virsh(spare, "domstate", "spare") == "shut off"


def test_a_lost_disk_is_told_and_not_made_anew(spare: Host) -> None:
    assert spare.ensure().error is None
    virsh(spare, "destroy", "spare")
    spare.there.run("rm", str(disk_path(spare.vm)))
    outcome = spare.ensure()
    assert "its disk's file is gone" in str(outcome.error)
    with pytest.raises(LabError):
        spare.there.run("test", "-e", str(disk_path(spare.vm)))


def test_a_host_that_cannot_run_it_says_why_and_what_to_do(spare: Host) -> None:
    assert "main has no bridge eth0" in str(spare.ensure(bridge="eth0").error)
    missing = spare.ensure(image=IMAGE.with_name("other.img"))
    assert "there is no image /var/lib/mlops/images/other.img: run the step `image` first" in str(missing.error)
    large = IMAGE.with_name("large.img")
    spare.there.run("qemu-img", "create", "-q", "-f", "qcow2", str(large), "10G")
    assert "the image is larger than the disk" in str(spare.ensure(image=large).error)
    by_kvm = Host(spare.there, spare.reached, Libvirt("kvm"), spare.vm)
    assert "there is no /dev/kvm on main" in str(by_kvm.ensure().error)
    assert "`accelerator: tcg`" in str(by_kvm.ensure().error)


def test_a_vm_that_does_not_start_is_told_with_qemus_reason_and_undone(spare: Host) -> None:
    outcome = spare.ensure(memory_mb=1 << 30)
    assert outcome.state is State.FAILED
    assert "libvirt does not start it: " in str(outcome.error)
    assert spare.observe().power is Power.ABSENT


def test_a_libvirt_that_does_not_answer_is_told(spare: Host) -> None:
    units = ("libvirtd.service", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket")
    spare.there.run("systemctl", "stop", *units)
    try:
        assert "libvirt does not answer" in str(spare.ensure().error)
    finally:
        spare.there.run("systemctl", "start", *units[1:])
