"""VirtualBox 7 itself on a host that ssh reaches, all of it but the start of a VM: that needs its kernel module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypervisors import IMAGE, Host, hypervisor
from lab import LabError
from lab_vms import host_layers
from virtualbox_root import share, virtualbox_layer

from infra.machines.trouble import MachineError
from infra.site.engine import run_steps
from infra.vms.driver import Power
from infra.vms.ensure import vm_step
from infra.vms.seed import PACKAGES as SEED_PACKAGES
from infra.vms.seed import seed_actions
from infra.vms.vboxmanage import read_info
from infra.vms.virtualbox import VirtualBox, disk_path
from infra.vms.virtualbox_units import HELPER, SERVER, vm_unit

pytestmark = [pytest.mark.machine, pytest.mark.hypervisor]
START = ["start VM worker"]
NO_MODULE = "VirtualBox's kernel module is not loaded"


@pytest.fixture(scope="module")
def host(machines_can_be_made: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("virtualbox")
    driver = VirtualBox()
    layers = (virtualbox_layer(), *host_layers((*driver.packages, *SEED_PACKAGES)))
    with hypervisor(folder, layers, driver) as opened:
        share(opened.there)
        opened.there.run("qemu-img", "create", "-q", "-f", "qcow2", str(IMAGE), "1G")
        yield opened


@pytest.fixture(autouse=True)
def _clean(host: Host) -> Iterator[None]:
    """Begin each test without a VM."""
    yield
    script = f"VBoxManage unregistervm worker; rm -rf {host.vm.folder} /var/lib/mlops/vms/mine /etc/systemd/system/"
    host.there.run("sh", "-c", f"{script}{vm_unit(host.vm)}; systemctl daemon-reload")


@pytest.fixture
def made(host: Host) -> Host:
    """Return the host with its VM, which is off."""
    apply(host)
    return host


def apply(host: Host, **changed: object) -> None:
    """Run the VM's step, which does all but the start."""
    assert NO_MODULE in str(host.ensure(keep=True, **changed).error)


def manage(host: Host, *words: str) -> str:
    """Return what VBoxManage says, after what it says of the missing kernel module each time."""
    return host.there.run("VBoxManage", "-q", *words).rpartition("until this problem is fixed.\n")[2].strip()


def settings(host: Host) -> dict[str, str]:
    return read_info(manage(host, "showvminfo", "worker", "--machinereadable"))


def differing(host: Host, **changed: object) -> list[str]:
    """Return what a run would do."""
    outcome = host.ensure(apply=False, **changed)
    assert outcome.error is None
    return [change.what for change in outcome.changes]


def test_a_vm_is_made_and_a_second_run_has_only_its_start_left(host: Host) -> None:
    assert differing(host) == ["make VM worker", *START]
    outcome = host.ensure(keep=True)
    assert NO_MODULE in str(outcome.error)
    assert "/sbin/vboxconfig" in str(outcome.error)
    found = settings(host)
    assert (found["memory"], found["cpus"], found["macaddress1"]) == ("512", "1", "525400123456")
    assert (found["nic1"], found["bridgeadapter1"], found["nictype1"]) == ("bridged", "br0", "virtio")
    assert found["sata-0-0"] == str(disk_path(host.vm))
    assert found["sata-1-0"] == str(host.vm.seed)
    assert host.observe().differences == ()
    assert (host.observe().power, host.observe().disk_bytes) == (Power.OFF, 3 << 30)
    assert differing(host) == START
    disk = host.there.run("stat", "-c", "%a %U %i", str(disk_path(host.vm)))
    assert disk.startswith("600 root ")
    apply(host)
    assert host.there.run("stat", "-c", "%a %U %i", str(disk_path(host.vm))) == disk


def test_a_vm_that_cannot_be_started_is_undone_by_the_run_that_made_it(host: Host) -> None:
    assert NO_MODULE in str(host.ensure().error)
    assert host.observe().power is Power.ABSENT
    with pytest.raises(LabError):
        host.there.run("test", "-e", str(host.vm.folder))
    assert manage(host, "list", "vms") + manage(host, "list", "hdds") + manage(host, "list", "dvds") == ""


def test_vms_are_made_side_by_side(host: Host) -> None:
    vms = [replace(host.vm, name=f"side{number}", mac=f"52:54:00:00:00:{number:02}") for number in range(4)]
    hosts = [Host(host.there, host.reached, host.driver, vm) for vm in vms]
    steps = [vm_step(vm, host.driver, ()) for vm in vms]
    outcomes = run_steps(steps, {"main": host.reached}, lambda step, state, detail: None, apply=True, keep=True)
    try:
        assert [str(item.error) for item in outcomes.values() if NO_MODULE not in str(item.error)] == []
        found = [each.observe() for each in hosts]
        assert [(item.power, item.differences, item.unfit) for item in found] == [(Power.OFF, (), ())] * 4
    finally:
        for each in hosts:
            each.do(host.driver.destroy(each.vm))
    assert manage(host, "list", "vms") == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("modifyvm", "worker", "--memory", "1024"), "memory is 1024, not 512"),
        (("modifyvm", "worker", "--cpus", "2"), "cpus is 2, not 1"),
        (("modifyvm", "worker", "--nic1", "nat"), "nic1 is nat, not bridged"),
        (("modifyvm", "worker", "--mac-address1", "525400000001"), "macaddress1 is 525400000001, not 525400123456"),
        (
            ("storageattach", "worker", "--storagectl", "sata", "--port", "0", "--device", "0", "--medium", "none"),
            "sata-0-0 is none, not /var/lib/mlops/vms/worker/disk.vdi",
        ),
        (("storagectl", "worker", "--name", "sata", "--remove"), "sata-1-0 is none, not"),
    ],
)
def test_what_was_changed_by_hand_while_it_is_off_is_mended(made: Host, words: tuple[str, ...], said: str) -> None:
    manage(made, *words)
    outcome = made.ensure(apply=False)
    assert [change.what for change in outcome.changes] == ["define VM worker anew", *START]
    assert said in outcome.changes[0].why
    apply(made)
    assert made.observe().differences == ()
    assert differing(made) == START


def test_a_disk_grows_and_is_never_made_smaller(made: Host) -> None:
    made.vm = replace(made.vm, disk_gb=5)
    try:
        assert differing(made) == ["make the disk of VM worker larger", *START]
        apply(made)
        assert made.observe().disk_bytes == 5 << 30
        outcome = made.pending(disk_gb=4)
        assert "a disk is never made smaller" in str(outcome.error)
        apply(made, disk_gb=4)
        assert made.observe().disk_bytes == 5 << 30
    finally:
        made.vm = replace(made.vm, disk_gb=3)


def test_snapshots_are_left_alone_and_keep_a_disk_from_growing(made: Host) -> None:
    manage(made, "snapshot", "worker", "take", "before")
    assert "/Snapshots/" in settings(made)["sata-0-0"]
    assert differing(made) == START
    assert "a disk with snapshots cannot be made larger" in str(made.ensure(disk_gb=4).error)
    manage(made, "modifyvm", "worker", "--memory", "1024")
    apply(made)
    assert made.observe().differences == ()
    assert "/Snapshots/" in settings(made)["sata-0-0"]
    # Its settings are still in its folder: they are taken up, not made anew.
    manage(made, "unregistervm", "worker")
    assert differing(made) == ["define VM worker anew", *START]
    apply(made)
    assert settings(made)["CurrentSnapshotName"] == "before"


@pytest.mark.parametrize("done", range(5))
def test_what_a_killed_run_left_half_made_is_completed(host: Host, done: int) -> None:
    vm = host.vm
    host.there.run("install", "-d", "-m", "0711", str(vm.folder))
    host.there.run("sh", "-c", f"echo half >{vm.folder}/disk.vdi.new; echo half >{vm.folder}/disk.vdi.layer")
    disk = ""
    if done:
        host.do((*seed_actions(vm, host.driver.readers), *host.driver.create(vm)[:done]))
        disk = host.there.run("stat", "-c", "%i", str(disk_path(vm)))
    apply(host)
    assert host.observe().differences == ()
    assert differing(host) == START
    if done:
        # The disk that was there: it could have had data.
        assert host.there.run("stat", "-c", "%i", str(disk_path(vm))) == disk


def test_a_lost_disk_is_told_and_not_made_anew(made: Host) -> None:
    made.there.run("rm", str(disk_path(made.vm)))
    assert "its disk's file is gone" in str(made.ensure().error)
    with pytest.raises(LabError):
        made.there.run("test", "-e", str(disk_path(made.vm)))


def test_destroy_removes_what_is_the_vms_own_and_no_other_disk(made: Host) -> None:
    inside, outside = f"{made.vm.folder}/mine.vdi", "/var/lib/mlops/vms/mine/data.vdi"
    made.there.run("mkdir", "-p", "/var/lib/mlops/vms/mine")
    manage(made, "storagectl", "worker", "--name", "sata", "--portcount", "4")
    for port, path in ((2, inside), (3, outside)):
        made.there.run("qemu-img", "create", "-q", "-f", "vdi", path, "1M")
        words = ("storageattach", "worker", "--storagectl", "sata", "--port", str(port), "--device", "0")
        manage(made, *words, "--type", "hdd", "--medium", path)
    assert differing(made) == START
    made.do(made.driver.destroy(made.vm))
    assert manage(made, "list", "vms") == ""
    assert made.there.run("ls", str(made.vm.folder)).split() == ["mine.vdi"]
    made.there.run("test", "-e", outside)
    assert any("left in /var/lib/mlops/vms/worker" in line and "mine.vdi" in line for line in made.told)
    # Again: nothing is there any more, and that is no error.
    made.do(made.driver.destroy(made.vm))


def test_another_vm_of_its_name_is_left_alone(host: Host) -> None:
    manage(host, "createvm", "--name", "worker", "--basefolder", "/var/lib/mlops/vms/mine", "--register")
    outcome = host.ensure()
    assert "root has another VM of this name, /var/lib/mlops/vms/mine/worker/worker.vbox" in str(outcome.error)
    with pytest.raises(MachineError, match="it stays as it is"):
        host.do(host.driver.destroy(host.vm))
    assert '"worker"' in manage(host, "list", "vms")


def test_a_host_that_cannot_run_it_says_why_and_what_to_do(host: Host) -> None:
    outcome = host.ensure(bridge="eno7")
    assert "main has no interface eno7 to bridge to" in str(outcome.error)
    assert "br0" in str(outcome.error)
    missing = host.ensure(image=IMAGE.with_name("other.img"))
    assert "there is no image /var/lib/mlops/images/other.img: run the step `image` first" in str(missing.error)
    host.there.run("mv", "/usr/bin/VBoxManage", "/usr/bin/VBoxManage.away")
    try:
        outcome = host.ensure()
    finally:
        host.there.run("mv", "/usr/bin/VBoxManage.away", "/usr/bin/VBoxManage")
    assert "there is no VBoxManage on main" in str(outcome.error)
    assert "install VirtualBox 7 on main, with its kernel module" in str(outcome.error)


def test_units_are_enabled_valid_and_the_server_is_in_a_unit_of_its_own(made: Host) -> None:
    unit = vm_unit(made.vm)
    assert made.there.run("systemctl", "is-enabled", SERVER, unit).split() == ["enabled", "enabled"]
    assert made.observe().autostarts
    made.there.run("systemd-analyze", "verify", f"/etc/systemd/system/{SERVER}", f"/etc/systemd/system/{unit}")
    # One that a command has started is there still: the unit waits for its end.
    manage(made, "list", "vms")
    made.there.run("systemctl", "start", SERVER)
    try:
        assert '"worker"' in manage(made, "list", "vms")
        servers = made.there.run("pgrep", "-x", "VBoxSVC").split()
        assert made.there.run("systemctl", "show", "--value", "-p", "MainPID", SERVER).split() == servers
        # VBoxHeadless itself says what it lacks here.
        made.there.run("systemctl", "start", unit)
        journal = ""
        for _ in range(20):
            journal = made.there.run("journalctl", "-u", unit, "-o", "cat", "--no-pager")
            if "Kernel driver not installed" in journal:
                break
            made.there.run("sleep", "0.5")
        assert "VBoxHeadless: Kernel driver not installed" in journal
    finally:
        made.there.run("systemctl", "stop", unit, SERVER)


def test_a_changed_unit_is_written_again(made: Host) -> None:
    made.there.run("sh", "-c", f"echo '# mine' >>/etc/systemd/system/{vm_unit(made.vm)}")
    assert not made.observe().autostarts
    apply(made)
    assert made.observe().autostarts


def test_stop_of_a_vm_that_is_off_is_done_at_once(made: Host) -> None:
    made.do(made.driver.stop(made.vm))
    assert made.there.run("stat", "-c", "%a", str(HELPER.path)).strip() == "755"
    assert made.observe().power is Power.OFF
