"""libvirt's driver without libvirt: what virsh 9 has said in, what is different and to be done out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from example_vms import example_vm

from configs.problems import UserError
from infra.machines.commands import Command
from infra.site.facts import Facts, Reading
from infra.site.step import Relay
from infra.vms.disk import disk_fact
from infra.vms.domain import amend_domain, domain_uuid, read_domain, render_domain
from infra.vms.driver import Observed, Power
from infra.vms.libvirt import Libvirt, disk_path
from infra.vms.machine import VirtualMachine

VM = replace(example_vm(), bridge="br0")
DRIVER = Libvirt("tcg")
# As `virsh dumpxml --inactive` shows what was rendered, with a disk that somebody has added.
XML = f"""\
<domain type='qemu'>
  <name>one</name>
  <uuid>{domain_uuid("one")}</uuid>
  <title>made by mlops for the site: change it in the site&apos;s file</title>
  <memory unit='KiB'>4194304</memory>
  <currentMemory unit='KiB'>4194304</currentMemory>
  <vcpu placement='static'>2</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <boot dev='hd'/>
  </os>
  <cpu mode='custom' match='exact' check='none'>
    <model fallback='forbid'>Nehalem</model>
  </cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/var/lib/mlops/vms/one/disk.qcow2'/>
      <target dev='vda' bus='virtio'/>
      <address type='pci' domain='0x0000' bus='0x03' slot='0x00' function='0x0'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='/var/lib/mlops/vms/one/seed.iso'/>
      <target dev='vdb' bus='virtio'/>
      <readonly/>
      <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/srv/data.qcow2'/>
      <target dev='vdc' bus='virtio'/>
    </disk>
    <interface type='bridge'>
      <mac address='52:54:00:12:34:56'/>
      <source bridge='br0'/>
      <model type='virtio'/>
      <address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>
    </interface>
    <memballoon model='virtio'/>
  </devices>
</domain>
"""
INFO = """\
Id:             1
Name:           one
State:          running
Persistent:     yes
Autostart:      enable
Managed save:   no
"""
NO_VM = Reading(1, "error: failed to get domain 'one'\n")


def readings(driver: Libvirt = DRIVER, **changed: Reading) -> Facts:
    """Return what a host with the VM says; ``changed``: info, xml, disk, bridge, processor."""
    said = {
        "info": Reading(0, INFO),
        "xml": Reading(0, XML),
        "disk": Reading(0, json.dumps({"virtual-size": 5 << 30, "format": "qcow2"})),
        "bridge": Reading(0),
        "processor": Reading(0),
        **changed,
    }
    facts = driver.facts(VM)
    assert facts[2] == disk_fact(disk_path(VM))
    return dict(zip(facts, said.values(), strict=True))


def observed(vm: VirtualMachine = VM, driver: Libvirt = DRIVER, **changed: Reading) -> Observed:
    facts = dict(zip(driver.facts(vm), readings(driver, **changed).values(), strict=True))
    return driver.observe(vm, facts)


def test_a_vm_as_it_should_be_has_no_differences() -> None:
    assert observed() == Observed(Power.RUNNING, 5 << 30, autostarts=True)


@pytest.mark.parametrize(
    ("state", "power"),
    [("paused", Power.RUNNING), ("in shutdown", Power.RUNNING), ("shut off", Power.OFF), ("crashed", Power.OFF)],
)
def test_whatever_has_a_process_runs(state: str, power: Power) -> None:
    assert observed(info=Reading(0, INFO.replace("running", state))).power is power


def test_each_difference_is_named_with_what_is_found_and_what_is_wanted() -> None:
    wanted = replace(VM, memory_mb=8192, cpus=4, mac="52:54:00:ab:cd:ef", bridge="br1")
    assert observed(wanted).differences == (
        "memory is 4096 MiB, not 8192 MiB",
        "number of CPUs is 2, not 4",
        "bridge is br0, not br1",
        "MAC is 52:54:00:12:34:56, not 52:54:00:ab:cd:ef",
    )
    assert observed(driver=Libvirt("kvm")).differences == ("type is qemu, not kvm",)
    without = XML.replace("dev='vdb'", "dev='vdx'")
    assert observed(xml=Reading(0, without)).differences == ("seed is not there, not /var/lib/mlops/vms/one/seed.iso",)


def test_what_is_rendered_reads_as_what_is_wanted_and_needs_no_amendment() -> None:
    text = render_domain(VM, disk_path(VM), "tcg")
    assert read_domain(text) == read_domain(XML)
    assert amend_domain(text, VM, disk_path(VM), "tcg") == text


def test_an_amendment_changes_what_differs_and_leaves_all_else() -> None:
    wanted = replace(VM, memory_mb=8192, cpus=4, bridge="br1")
    text = amend_domain(XML, wanted, disk_path(VM), "kvm")
    assert read_domain(text) == read_domain(render_domain(wanted, disk_path(VM), "kvm"))
    assert "/srv/data.qcow2" in text
    assert "pc-q35-7.2" in text
    # Its places on the bus: a guest's names of cards and disks may depend on them.
    assert 'bus="0x01"' in text
    assert 'bus="0x03"' in text
    assert 'mode="host-passthrough"' in text
    assert "Nehalem" not in text
    assert "currentMemory" not in text


def test_a_disk_above_a_snapshot_stays() -> None:
    above = XML.replace("one/disk.qcow2", "one/disk.before-upgrade")
    assert observed(xml=Reading(0, above)).differences == ()
    assert "one/disk.before-upgrade" in amend_domain(above, replace(VM, cpus=4), disk_path(VM), "tcg")


def test_a_definition_begins_with_what_the_host_says_now() -> None:
    (relay,) = DRIVER.define(VM)
    assert isinstance(relay, Relay)
    assert relay.machine == "desk"
    (command,) = relay.then("\n")
    assert isinstance(command, Command)
    assert command.argv[-2:] == ("define", "/dev/stdin")
    assert command.stdin == render_domain(VM, disk_path(VM), "tcg")
    (command,) = relay.then(XML)
    assert isinstance(command, Command)
    assert "/srv/data.qcow2" in command.stdin
    with pytest.raises(UserError, match="cannot be read"):
        relay.then("<domain>")


def test_a_vm_that_is_not_there_is_absent_unless_its_disk_is() -> None:
    assert observed(xml=NO_VM, info=NO_VM, disk=Reading(44)).power is Power.ABSENT
    found = observed(xml=NO_VM, info=NO_VM)
    assert (found.power, found.differences) == (Power.OFF, ("libvirt does not know it",))
    # Before its packages are installed nothing runs.
    no_virsh = Reading(127, "env: 'virsh': No such file or directory\n")
    found = observed(xml=no_virsh, info=no_virsh, disk=Reading(44))
    assert (found.power, found.unfit) == (Power.ABSENT, ())


def test_an_answer_that_is_none_is_never_taken_for_no_vm() -> None:
    refused = "error: failed to connect to the hypervisor\nerror: Failed to connect socket: No such file\n"
    (change,) = observed(xml=Reading(1, refused)).unfit
    assert change.why.startswith("libvirt does not answer: error: failed to connect to the hypervisor")
    assert observed(xml=Reading(124)).unfit
    assert observed(xml=Reading(0, "<domain>")).unfit


def test_what_a_host_lacks_is_told_with_what_to_do() -> None:
    (change,) = observed(bridge=Reading(1)).unfit
    assert change.why == "desk has no bridge br0"
    assert "hosts.desk" in change.by_hand
    (change,) = observed(driver=Libvirt("kvm"), processor=Reading(1)).unfit
    assert change.why == "there is no /dev/kvm on desk"
    (change,) = observed(disk=Reading(44)).unfit
    assert "/var/lib/mlops/vms/one/disk.qcow2" in change.by_hand


def test_a_vm_of_somebody_else_is_told_apart_by_its_id() -> None:
    theirs = XML.replace(domain_uuid("one"), "7be7a299-f395-55b8-949a-a4a154cce960")
    (change,) = observed(xml=Reading(0, theirs)).unfit
    assert change.why == "desk has another VM of this name, 7be7a299-f395-55b8-949a-a4a154cce960"
    assert change.actions == ()


def test_no_action_but_destroy_removes_anything_and_destroy_only_its_own() -> None:
    for actions in (DRIVER.create(VM), DRIVER.define(VM), DRIVER.grow(VM), DRIVER.start(VM), DRIVER.stop(VM)):
        words = " ".join(word for action in actions if isinstance(action, Command) for word in action.argv)
        assert "undefine" not in words
    words = " ".join(word for action in DRIVER.destroy(VM) if isinstance(action, Command) for word in action.argv)
    assert "--remove-all-storage" not in words
    assert "rm -rf" not in words
