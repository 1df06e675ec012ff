"""Plain QEMU itself, by TCG, on a host that ssh reaches: a VM that boots, is shut down, changed, killed and removed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from hypervisors import IMAGE, Host, hypervisor, told_by_guest
from lab import LabError, run
from lab_vms import host_layers
from small_guest import small_guest

from infra.site.engine import State, problems_of
from infra.vms.driver import Power
from infra.vms.qemu import ACCOUNT, Qemu

pytestmark = pytest.mark.machine
UNIT = "mlops-vm-worker.service"


@pytest.fixture(scope="module")
def host(machines_can_be_made: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with hypervisor(tmp_path_factory.mktemp("qemu"), host_layers(), Qemu("tcg")) as opened:
        opened.there.run("useradd", "--system", "--user-group", ACCOUNT)
        run("cp", str(small_guest()), f"{opened.there.root}{IMAGE}")
        yield opened


def journal(host: Host) -> str:
    return host.there.run("journalctl", "--no-pager", "-b", "-o", "cat", "-u", UNIT)


def soon(there: Callable[[], bool], timeout_s: float = 60) -> bool:
    """Whether it is there in time. What its machine does not answer is asked again."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with suppress(LabError):
            if there():
                return True
        time.sleep(0.5)
    return there()


def test_a_vm_is_made_and_boots_and_a_second_run_does_nothing(host: Host) -> None:
    outcome = host.ensure()
    assert (outcome.state, outcome.error) == (State.CHANGED, None)
    assert [change.what for change in outcome.changes] == ["make VM worker", "start VM worker"]
    assert host.ensure().state is State.FITS
    told = told_by_guest(host)
    assert (told["name"], told["cpus"], told["vda"]) == ("worker", "1", str(3 << 30))


def test_qemu_is_an_account_of_its_own_and_nobody_else_reads_its_files(host: Host) -> None:
    assert set(host.there.run("ps", "-o", "user=", "-C", "qemu-system-x86").split()) == {ACCOUNT}
    folder = str(host.vm.folder)
    modes = host.there.run("stat", "-c", "%a %U %G", f"{folder}/disk.qcow2", f"{folder}/seed.iso").splitlines()
    assert modes == [f"600 {ACCOUNT} {ACCOUNT}", f"640 root {ACCOUNT}"]


def test_its_power_button_shuts_it_down(host: Host) -> None:
    host.do(host.driver.stop(host.vm))
    assert host.observe().power is Power.OFF
    said = journal(host)
    assert "Power down" in said
    assert "timeout" not in said


def test_memory_processors_and_disk_come_while_it_is_off(host: Host) -> None:
    host.vm = replace(host.vm, memory_mb=640, cpus=2, disk_gb=4)
    assert [change.what for change in host.ensure().changes] == [
        "define VM worker anew",
        "make the disk of VM worker larger",
        "start VM worker",
    ]
    told = told_by_guest(host)
    assert (told["cpus"], told["vda"]) == ("2", str(4 << 30))
    assert "its unit lacks `-m 704`; it runs" in str(host.pending(memory_mb=704).error)
    assert host.ensure(memory_mb=704).state is State.FITS


def test_a_qemu_that_dies_is_started_again(host: Host) -> None:
    def main_process() -> str:
        return host.there.run("systemctl", "show", "-P", "MainPID", UNIT, timeout_s=10).strip()

    process = main_process()
    host.there.run("kill", "-KILL", process)
    assert soon(lambda: main_process() not in ("0", process))
    assert host.ensure().error is None
    assert told_by_guest(host)["name"] == "worker"


def test_after_a_power_cut_of_the_host_the_vm_runs_again(host: Host) -> None:
    host.there.cut_power()
    host.there.boot()
    host.there.wait()
    host.reached.wait_until_reachable(60)
    assert soon(lambda: host.observe().power is Power.RUNNING)
    assert told_by_guest(host)["vda"] == str(4 << 30)


def test_destroy_removes_what_is_the_vms_own_and_nothing_else(host: Host) -> None:
    beside = f"{host.vm.folder}/mine.qcow2"
    host.there.run("touch", beside)
    host.do(host.driver.destroy(host.vm))
    assert host.observe().power is Power.ABSENT
    assert any("mine.qcow2" in line for line in host.told)
    assert host.there.run("ls", str(host.vm.folder)).split() == ["mine.qcow2"]
    host.there.run("rm", beside)
    # Again: nothing is there any more, and that is no error.
    host.do(host.driver.destroy(host.vm))


def test_a_vm_that_does_not_start_is_told_in_qemus_words_and_undone_unless_it_is_to_be_kept(host: Host) -> None:
    huge = 64_000_000
    outcome = host.ensure(memory_mb=huge)
    told = str(problems_of({("worker", "vm"): outcome}))
    assert "phys-bits too low" in told
    assert "was undone: make VM worker" in told
    assert "worker" not in host.there.run("find", "/var/lib/mlops/vms", "/etc/systemd/system")
    assert host.ensure(memory_mb=huge, keep=True).state is State.FAILED
    assert "disk.qcow2" in host.there.run("ls", str(host.vm.folder))
    # What was there before a run is never undone.
    assert host.ensure(memory_mb=huge).state is State.FAILED
    assert "disk.qcow2" in host.there.run("ls", str(host.vm.folder))


def test_a_lost_disk_is_told_and_not_made_anew(host: Host) -> None:
    host.there.run("rm", f"{host.vm.folder}/disk.qcow2")
    assert "is gone or cannot be read" in str(host.ensure().error)
    assert "disk.qcow2" not in host.there.run("ls", str(host.vm.folder))
