"""VirtualBox's driver without VirtualBox: what VBoxManage 7.2 has said in, what is different and to be done out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from example_vms import example_vm

from infra.machines.commands import Command, File, Removal
from infra.site.facts import Facts, Reading
from infra.site.reading import file_fact
from infra.vms.disk import disk_fact
from infra.vms.driver import Observed, Power
from infra.vms.machine import VirtualMachine
from infra.vms.vboxmanage import BRIDGES, VERSION, info_fact, read_info
from infra.vms.virtualbox import VirtualBox, disk_path
from infra.vms.virtualbox_units import HELPER, unit_files

VM = example_vm()
# What is said when its kernel module is missing comes before every answer, on standard output.
WARNING = """\
WARNING: The character device /dev/vboxdrv does not exist.
\t Please install the virtualbox-dkms package and the appropriate
\t headers, most likely linux-headers-v669.

\t You will not be able to start VMs until this problem is fixed.
"""
INFO = (
    WARNING
    + """\
name="one"
encryption="disabled"
groups="/"
ostype="Ubuntu 22.04 LTS (Jammy Jellyfish) (64-bit)"
CfgFile="/var/lib/mlops/vms/one/one.vbox"
SnapFldr="/var/lib/mlops/vms/one/Snapshots"
memory=4096
firmware="BIOS"
cpus=2
boot1="disk"
boot2="none"
ioapic="on"
rtcuseutc="on"
VMState="poweroff"
VMStateChangeTime="2026-11-26T14:10:37.641000000"
storagecontrollername0="sata"
storagecontrollerportcount0="2"
"sata-0-0"="/var/lib/mlops/vms/one/disk.vdi"
"sata-ImageUUID-0-0"="e852ff5f-a5ba-4b27-8fe4-7a709c96495f"
"sata-1-0"="/var/lib/mlops/vms/one/seed.iso"
bridgeadapter1="eth0"
macaddress1="525400123456"
cableconnected1="on"
nic1="bridged"
nictype1="virtio"
nicspeed1="0"
 rec_screen0
uart1="0x03f8,4"
uartmode1="file,/dev/null"
description="Made by mlops"
"""
)
NO_VM = """\
VBoxManage: error: Could not find a registered machine named 'one'
VBoxManage: error: Details: code VBOX_E_OBJECT_NOT_FOUND (0x80bb0001), component VirtualBoxWrap, interface IVirtualBox
VBoxManage: error: Context: "FindMachine(Bstr(VMNameOrUuid).raw(), machine.asOutParam())" at line 3248
"""
INTERFACES = """\
Name:            eth0
GUID:            effffff9-7b97-44b7-8000-02fc00000001
Status:          Up
VBoxNetworkName: HostInterfaceNetworking-eth0

Name:            wlp2s0
Status:          Down
"""


def readings(**changed: Reading) -> Facts:
    """Return what a host with the VM says; ``changed``: version, info, bridges, disk, enabled."""
    said = {
        "version": Reading(0, WARNING + "7.2.22_Debianr175245\n"),
        "info": Reading(0, INFO),
        "bridges": Reading(0, WARNING + INTERFACES),
        "disk": Reading(0, json.dumps({"virtual-size": 5 << 30, "format": "vdi"})),
        "enabled": Reading(0, "enabled\nenabled\n"),
        **changed,
    }
    known = {
        VERSION: said["version"],
        info_fact("one"): said["info"],
        BRIDGES: said["bridges"],
        disk_fact(disk_path(VM)): said["disk"],
        **{file_fact(file): written(file) for file in unit_files(VM)},
    }
    return {fact: known.get(fact, said["enabled"]) for fact in VirtualBox().facts(VM)}


def written(file: File) -> Reading:
    digest = hashlib.sha256(file.text.encode()).hexdigest()
    return Reading(0, f"{file.mode:o} {file.group}\n{digest}  -\n{file.text}")


def observed(vm: VirtualMachine = VM, **changed: Reading) -> Observed:
    return VirtualBox().observe(vm, readings(**changed))


def test_a_vm_as_it_should_be_has_no_differences() -> None:
    assert observed() == Observed(Power.OFF, 5 << 30, autostarts=True)


@pytest.mark.parametrize(
    ("state", "power"),
    [
        ("running", Power.RUNNING),
        ("paused", Power.RUNNING),
        ("stopping", Power.RUNNING),
        ("gurumeditation", Power.RUNNING),
        ("aborted", Power.OFF),
        ("saved", Power.OFF),
    ],
)
def test_whatever_has_a_process_runs(state: str, power: Power) -> None:
    assert observed(info=Reading(0, INFO.replace("poweroff", state))).power is power


def test_lines_that_are_no_settings_are_left_out() -> None:
    found = read_info(INFO)
    assert found["sata-0-0"] == "/var/lib/mlops/vms/one/disk.vdi"
    assert found["memory"] == "4096"
    assert not [name for name in found if "WARNING" in name or "rec" in name]


def test_each_difference_is_named_with_what_is_found_and_what_is_wanted() -> None:
    wanted = replace(VM, memory_mb=8192, cpus=4, mac="52:54:00:ab:cd:ef")
    assert observed(wanted).differences == (
        "memory is 4096, not 8192",
        "cpus is 2, not 4",
        "macaddress1 is 525400123456, not 525400ABCDEF",
    )


def test_a_disk_above_a_snapshot_is_no_difference_and_another_disk_is() -> None:
    above = INFO.replace("one/disk.vdi", "one/Snapshots/{4b224e8b-8898-445d-b257-b85c1d09e3d5}.vdi")
    assert observed(info=Reading(0, above)).differences == ()
    other = INFO.replace("one/disk.vdi", "other.vdi")
    assert observed(info=Reading(0, other)).differences == (
        "sata-0-0 is /var/lib/mlops/vms/other.vdi, not /var/lib/mlops/vms/one/disk.vdi",
    )


def test_a_vm_that_is_not_there_is_absent_unless_its_disk_is() -> None:
    no_disk = Reading(44, "")
    assert observed(info=Reading(1, NO_VM), disk=no_disk).power is Power.ABSENT
    found = observed(info=Reading(1, NO_VM))
    assert (found.power, found.differences) == (Power.OFF, ("VirtualBox does not know it",))


def test_an_answer_that_is_none_is_never_taken_for_no_vm() -> None:
    (change,) = observed(info=Reading(124, WARNING)).unfit
    assert change.why.startswith("`VBoxManage showvminfo one --machinereadable` ended with 124")
    (change,) = observed(bridges=Reading(124)).unfit
    assert change.by_hand == "look on desk: `sudo VBoxManage list bridgedifs`"
    (change,) = observed(info=Reading(1, "VBoxManage: error: Failed to create the VirtualBox object!\n")).unfit
    assert change.why.endswith("Failed to create the VirtualBox object!")


def test_what_a_host_lacks_is_told_with_what_to_do() -> None:
    (change,) = observed(version=Reading(127, "env: 'VBoxManage': No such file or directory\n")).unfit
    assert change.why == "there is no VBoxManage on desk"
    assert "with its kernel module" in change.by_hand
    (change,) = observed(version=Reading(0, "6.1.50_Ubuntur161033\n")).unfit
    assert change.why == "VBoxManage is version 6.1.50_Ubuntur161033"
    (change,) = observed(replace(VM, bridge="eno1")).unfit
    assert change.by_hand == "write under hosts.desk `bridge:` with one of its interfaces: eth0, wlp2s0"
    (change,) = observed(disk=Reading(44, "")).unfit
    assert "/var/lib/mlops/vms/one/disk.vdi" in change.by_hand


def test_a_vm_of_somebody_else_is_told_apart_by_its_folder() -> None:
    theirs = INFO.replace('CfgFile="/var/lib/mlops/vms', 'CfgFile="/root/VirtualBox VMs')
    (change,) = observed(info=Reading(0, theirs)).unfit
    assert change.why == "root has another VM of this name, /root/VirtualBox VMs/one/one.vbox"
    assert change.actions == ()


def test_it_does_not_start_with_its_host_when_a_unit_is_another_or_not_enabled() -> None:
    assert not observed(enabled=Reading(1, "disabled\n")).autostarts
    facts = dict(readings())
    facts[file_fact(unit_files(VM)[2])] = Reading(1, "")
    assert not VirtualBox().observe(VM, facts).autostarts


def test_the_guests_power_button_is_pressed_before_its_host_goes() -> None:
    server, helper, unit = unit_files(VM)
    assert f"ExecStop={HELPER.path} stop one\n" in unit.text
    assert "acpipowerbutton" in helper.text
    # VBoxSVC outlives the VMs: they end before it does, for they require it and come after it.
    assert f"Requires={server.path.name}\n" in unit.text
    assert server.path.name in unit.text.partition("After=")[2].splitlines()[0]
    assert "WantedBy=multi-user.target" in unit.text


def test_no_action_but_destroy_removes_anything_and_destroy_only_its_own() -> None:
    driver = VirtualBox()
    for actions in (driver.create(VM), driver.define(VM), driver.grow(VM), driver.start(VM), driver.stop(VM)):
        for action in actions:
            assert not isinstance(action, Removal)
            text = " ".join(action.argv) if isinstance(action, Command) else ""
            assert "unregistervm" not in text
            assert "closemedium" not in text
    words = " ".join(word for action in driver.destroy(VM) if isinstance(action, Command) for word in action.argv)
    assert "--delete" not in words
    assert 'rm -rf "$folder"' not in words


def test_facts_change_nothing() -> None:
    words = {word for fact in VirtualBox().facts(VM) for word in fact.argv}
    assert not words & {"modifyvm", "createvm", "controlvm", "startvm", "storageattach"}
