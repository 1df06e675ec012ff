"""Virtual machines: what a host says of them in, what is to be done there out. No machine is asked here."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
import yaml

from configs.machines import VmImage
from configs.problems import UserError
from configs.site import Site, load_site
from infra.machines.commands import Command, File
from infra.machines.host_keys import pinned_keys
from infra.site.facts import Fact, Reading
from infra.site.reading import file_fact, packages_fact, unit_fact
from infra.site.step import Change
from infra.vms.control import destroy_step, losses, start_step, stop_step
from infra.vms.ensure import pending_step, vm_step
from infra.vms.image import image_path, image_step
from infra.vms.inventory import vms_of
from infra.vms.machine import VirtualMachine, mac_of
from infra.vms.qemu import Qemu, tap_of
from infra.vms.ready import ready_step
from infra.vms.seed import meta_data, network_config, seed_actions, seed_marker, user_data

IMAGE = VmImage(url="https://example.org/debian.qcow2", sha256="a" * 64)
VM = VirtualMachine(
    name="worker",
    host="main",
    mac="52:54:00:00:00:01",
    address="192.168.10.101",
    prefix=24,
    gateway="192.168.10.1",
    nameservers=("192.168.10.1",),
    memory_mb=8192,
    cpus=2,
    disk_gb=40,
    bridge="br0",
    image=image_path(IMAGE),
    user_key="ssh-ed25519 AAAA mlops",
    host_key="-----BEGIN OPENSSH PRIVATE KEY-----\ncanary\n",
    host_key_public="ssh-ed25519 BBBB worker",
)
DRIVER = Qemu("kvm")
UNIT = "mlops-vm-worker.service"
SITE = """\
storage: {kind: directory}
network: {cidr: 192.168.10.0/24, gateway: 192.168.10.1}
vm_image: {file: /srv/debian.img, sha256: SUM}
hosts:
  main: {address: 192.168.10.20, vms: qemu, bridge: br0}
vms:
  worker: {host: main, address: 192.168.10.101, memory_mb: 2048, disk_gb: 20, cpus: 2, roles: [storage]}
"""


def as_read(file: File) -> Reading:
    digest = hashlib.sha256(file.text.encode()).hexdigest()
    return Reading(0, f"{file.mode:o} {file.group}\n{digest}  -\n{file.text}")


def unit(active: str = "active", file: str = "enabled") -> Reading:
    return Reading(0, f"LoadState=loaded\nUnitFileState={file}\nActiveState={active}\nNeedDaemonReload=no\nMarked=1\n")


def disk(gib: int) -> Reading:
    return Reading(0, json.dumps({"virtual-size": gib << 30}))


def host(made: VirtualMachine | None = VM, vm: VirtualMachine = VM, **other: Reading) -> dict[Fact, Reading]:
    """What the host of ``vm`` says with ``made`` on it and running; ``other`` by `unit`, `disk` and `bridge`."""
    known = {fact: Reading(0) for fact in vm_step(vm, DRIVER, ()).facts}
    for fact in known:
        if fact.argv[0] == "qemu-img":
            known[fact] = other.get("disk", disk(made.disk_gb) if made else Reading(1, "No such file"))
        elif fact.argv[:2] == ("test", "-d"):
            known[fact] = other.get("bridge", Reading(0))
    known[file_fact(seed_marker(vm))] = as_read(seed_marker(made)) if made else Reading(1)
    known[file_fact(DRIVER.unit_file(vm))] = as_read(DRIVER.unit_file(made)) if made else Reading(1)
    known[unit_fact(UNIT)] = other.get("unit", unit() if made else Reading(0, "LoadState=not-found\n"))
    return known


def wanted(known: dict[Fact, Reading], vm: VirtualMachine = VM) -> list[Change]:
    return list(vm_step(vm, DRIVER, ()).changes(known))


def pending(known: dict[Fact, Reading], vm: VirtualMachine = VM) -> list[Change]:
    return list(pending_step(vm, DRIVER, ()).changes(known))


def test_a_machine_as_wanted_is_left_alone() -> None:
    assert wanted(host()) == pending(host()) == []


def test_one_that_is_not_there_is_made_with_its_seed_first_and_its_unit_last() -> None:
    made, started = wanted(host(None))
    assert [type(action) for action in made.actions] == [Command, File, Command, File, Command]
    seed, _, copied = made.actions[:3]
    assert "canary" in seed.stdin
    assert str(42949672960) in copied.argv
    assert made.undo == DRIVER.destroy(VM)
    assert (started.what, started.undo) == ("start VM worker", ())
    assert pending(host(None)) == []


def test_one_that_is_off_is_started_and_one_that_only_runs_by_chance_will_start_with_its_host() -> None:
    assert [change.what for change in wanted(host(unit=unit("failed")))] == ["start VM worker"]
    # Fails and is started again and again.
    assert [change.what for change in wanted(host(unit=unit("activating")))] == ["start VM worker"]
    (change,) = wanted(host(unit=unit(file="disabled")))
    assert change.why == "would be off after a reboot"


def test_memory_processors_and_disk_change_when_it_is_off_and_are_told_while_it_runs() -> None:
    more = replace(VM, memory_mb=9000, cpus=4, disk_gb=60)
    off = host(unit=unit("inactive"))
    defined, grown, started = wanted(off, more)
    assert defined.why == "its unit lacks `-smp 4`; its unit lacks `-m 9000`"
    assert grown.why == "has 40 GiB, 60 are wanted"
    assert started.what == "start VM worker"
    assert wanted(host(), more) == []
    told = pending(host(), more)
    assert [change.actions for change in told] == [(), ()]
    assert all("`mlops site stop worker`" in change.by_hand for change in told)


def test_a_disk_is_never_made_smaller_nor_anew() -> None:
    less = replace(VM, disk_gb=30)
    (change,) = pending(host(), less)
    assert (change.actions, change.by_hand) == ((), "write `disk_gb: 40`: a disk is never made smaller")
    assert [item.what for item in wanted(host(unit=unit("inactive")), less)] == ["start VM worker"]
    (lost,) = wanted(host(disk=Reading(1, "No such file"), unit=unit("failed")))
    assert lost.actions == ()
    assert "`mlops site destroy worker`" in lost.by_hand


def test_another_address_or_key_is_another_identity_at_the_next_start() -> None:
    moved = replace(VM, address="192.168.10.102")
    assert [change.what for change in wanted(host(unit=unit("inactive")), moved)] == [
        "give VM worker its identity",
        "start VM worker",
    ]
    assert [change.what for change in pending(host(), moved)] == ["give VM worker its identity"]
    assert meta_data(VM) == meta_data(replace(VM, memory_mb=1, image=PurePosixPath("/other")))
    assert (
        len({meta_data(vm) for vm in (VM, moved, replace(VM, user_key="k"), replace(VM, mac="52:54:00:00:00:02"))}) == 4
    )


def test_a_host_that_cannot_run_it_is_told_what_it_lacks() -> None:
    (change,) = wanted(host(None, bridge=Reading(1)))
    assert change.actions == ()
    assert "hosts.main.bridge" in change.by_hand
    known = host(None) | {Fact(("test", "-c", "/dev/kvm")): Reading(1)}
    (change,) = wanted(known)
    assert "`accelerator: tcg`" in change.by_hand


def test_the_accelerator_is_the_files_choice() -> None:
    assert ("-machine", "q35,accel=kvm") in Qemu("kvm").command(VM)
    assert ("-machine", "q35,accel=tcg") in Qemu("tcg").command(VM)
    assert "/dev/kvm" not in Qemu("tcg").unit_file(VM).text


def test_the_seed_is_what_cloud_init_reads() -> None:
    user = user_data(VM)
    assert user.startswith("#cloud-config\n")
    values = yaml.safe_load(user)
    assert [account["name"] for account in values["users"]] == ["mlops"]
    assert values["users"][0]["lock_passwd"] is True
    assert values["users"][0]["ssh_authorized_keys"] == [VM.user_key]
    assert (values["ssh_pwauth"], values["disable_root"]) == (False, True)
    assert values["ssh_keys"]["ed25519_private"] == VM.host_key
    assert (values["manage_etc_hosts"], values["locale"]) == ("localhost", "false")
    network = yaml.safe_load(network_config(VM))
    assert network["ethernets"]["site"]["match"] == {"macaddress": VM.mac}
    assert network["ethernets"]["site"]["addresses"] == ["192.168.10.101/24"]
    assert yaml.safe_load(meta_data(VM))["local-hostname"] == "worker"


def test_the_host_key_is_in_no_command_line_and_shown_by_nothing() -> None:
    actions = seed_actions(VM, "mlops-vm")
    assert "canary" not in repr((VM, actions))
    assert not any("canary" in word for action in actions if isinstance(action, Command) for word in action.argv)


def test_a_mac_is_the_same_for_a_name_and_a_tap_fits_linux() -> None:
    assert mac_of("worker") == mac_of("worker") != mac_of("storage")
    assert mac_of("worker").startswith("52:54:00:")
    assert len(tap_of("w" * 63)) <= 15


def test_a_host_gets_tools_account_and_image_once() -> None:
    step = image_step("main", IMAGE, DRIVER, ())
    packages = next(fact for fact in step.facts if fact.argv[0] == "dpkg-query")
    names = (*DRIVER.packages, "genisoimage")
    assert packages == packages_fact(names)
    there = {packages: Reading(0, "".join(f"{name} ii  1\n" for name in names))}
    assert list(step.changes({fact: there.get(fact, Reading(0)) for fact in step.facts})) == []
    changes = list(step.changes({fact: there.get(fact, Reading(1)) for fact in step.facts}))
    assert [change.what for change in changes] == ["make account mlops-vm", f"fetch {IMAGE.url}"]
    (fetch,) = changes[1].actions
    assert fetch.argv[-3:] == (str(image_path(IMAGE)), IMAGE.sha256, IMAGE.url)


@pytest.mark.parametrize(
    ("content", "sums", "said"),
    [("image", True, ""), ("another", True, "has the checksum"), ("image", False, "has the checksum")],
)
def test_an_image_has_its_name_only_with_its_checksum(tmp_path: Path, content: str, sums: bool, said: str) -> None:
    source = tmp_path / "source"
    source.write_text(content)
    wanted_sum = hashlib.sha256(b"image").hexdigest() if sums else "b" * 64
    image = VmImage(file=str(source), sha256=wanted_sum)
    step = image_step("main", image, DRIVER, ())
    (command,) = list(step.changes({fact: Reading(0) for fact in step.facts} | {step.facts[-1]: Reading(1)}))[
        -1
    ].actions
    target = tmp_path / "images" / "i.img"
    script = [*command.argv[:4], str(target), *command.argv[5:]]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert said in done.stderr
    assert (target.exists(), done.returncode == 0) == (not said, not said)
    assert [path.name for path in (tmp_path / "images").iterdir()] == ([] if said else ["i.img"])


@pytest.mark.parametrize(
    ("runs", "source", "errors", "what"),
    [
        (0, None, [], ["wait for cloud-init"]),
        (0, "DataSourceNoCloud [seed=/dev/vdb][dsmode=net]", [], []),
        (0, "DataSourceNone", [], ["give the machine its identity"]),
        (0, "DataSourceNoCloud [seed=/dev/vdb]", ["('ssh', 1)"], ["let cloud-init end well"]),
        (1, None, [], ["let cloud-init run"]),
    ],
)
def test_a_machine_is_ready_when_cloud_init_has_ended_well_with_its_seed(
    runs: int, source: str | None, errors: list[str], what: list[str]
) -> None:
    step = ready_step("worker", (("worker", "vm"),))
    result = Reading(0, json.dumps({"v1": {"datasource": source, "errors": errors}})) if source else Reading(1)
    known = dict(zip(step.facts, (Reading(runs), result), strict=True))
    assert [change.what for change in step.changes(known)] == what
    assert (step.boots_s > 0, step.vouches_for) == (True, (("worker", "vm"),))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    path = tmp_path / "site.yaml"
    path.write_text(SITE.replace("SUM", "a" * 64).replace(", roles: [storage]", ""))
    return load_site(path)


def test_keys_are_made_once_and_pinned_before_the_machine_is_there(site: Site, tmp_path: Path) -> None:
    made = vms_of(site, tmp_path)["worker"]
    assert vms_of(site, tmp_path)["worker"] == made
    key = tmp_path / "site/host-keys/worker"
    assert key.stat().st_mode & 0o777 == 0o600
    assert pinned_keys(tmp_path / "site", "worker") == [" ".join(made.host_key_public.split()[:2])]
    assert made.mac == mac_of("worker")
    assert made.nameservers == ("192.168.10.1",)


def test_only_a_machine_that_the_site_makes_can_be_stopped_or_destroyed(site: Site, tmp_path: Path) -> None:
    for step_of in (start_step, stop_step, destroy_step):
        assert step_of(site, "worker", tmp_path).where == "main"
        with pytest.raises(UserError, match="is no VM"):
            step_of(site, "main", tmp_path)
    made = vms_of(site, tmp_path)["worker"]
    running, off = host(made, made), host(made, made, unit=unit("inactive"))
    for step_of, known, what in (
        (start_step, off, ["start VM worker"]),
        (stop_step, running, ["shut VM worker down"]),
        (destroy_step, off, ["destroy VM worker"]),
        (start_step, running, []),
        (stop_step, off, []),
        (destroy_step, host(None, made), []),
    ):
        assert [change.what for change in step_of(site, "worker", tmp_path).changes(known)] == what
    (absent,) = start_step(site, "worker", tmp_path).changes(host(None, made))
    assert absent.by_hand == "make it: `mlops site apply --machine worker`"
    assert losses(site, "worker") == ("Its disk, 20 GiB on main.",)
