"""Two virtual machines, from an image to a share that one mounts from the other, and through a power cut.

Emulated by QEMU on a host of the laboratory: kernels, disks, cloud-init, CIFS and reboots are real.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import pytest
from cloud_image import cloud_image, sha256
from lab import Lab, LabMachine
from lab_vms import BRIDGE, open_host, served

from configs.site import load_site
from infra.machines.commands import Command, File, Upload
from infra.machines.host_keys import pin
from infra.machines.ssh import Machine
from infra.site.engine import Key, Outcome, State
from infra.site.inventory import machines_of, site_folder
from infra.site.plan import select, site_steps
from infra.site.session import login_of, run_site

pytestmark = [pytest.mark.machine, pytest.mark.hypervisor, pytest.mark.timeout(3000)]
CHECKOUT = Path(__file__).parents[2]
STEPS = ("image", "vm", "ready", "pending", "base", "storage", "mounts")
"""Those of the machines' health and of Kubernetes are tested elsewhere, on machines that are quicker."""
MOUNTED = "/mnt/sambashare"
FILE = """\
storage:
  kind: smb
  url: smb://alice@{network}.101/sambashare/dvc
  password: {{file: .mlops/share-password}}
network: {{cidr: {network}.0/24, gateway: {network}.1}}
vm_image: {{url: '{url}', sha256: {sha256}}}
hosts:
  main:
    address: {address}
    roles: [control-plane]
    vms: qemu
    accelerator: tcg
    bridge: {bridge}
    ssh: {{user: admin, key: {key}}}
vms:
  storage: {{host: main, address: {network}.101, memory_mb: 640, disk_gb: 5, cpus: 1, roles: [storage]}}
  worker: {{host: main, address: {network}.102, memory_mb: 640, disk_gb: 5, cpus: 1, roles: [worker]}}
"""


class VmSite:
    """A host's checkout: its file, its state, and the runs over it."""

    def __init__(self, lab: Lab, host: LabMachine, url: str, root: Path) -> None:
        self.host = host
        self.root, self.home = root, root / ".mlops"
        self.file = root / "configs/site.yaml"
        self.file.parent.mkdir(parents=True)
        values = {"network": lab.network, "address": host.address, "key": lab.key, "bridge": BRIDGE, "url": url}
        self.file.write_text(FILE.format(sha256=sha256(cloud_image()), **values))
        pin(site_folder(self.home), "main", [host.host_key])

    def run(
        self, *, apply: bool, machines: Sequence[str] = (), names: Sequence[str] = STEPS, **how: bool
    ) -> dict[Key, Outcome]:
        site = load_site(self.file)
        steps = select(site_steps(site, self.root, self.home), machines, names)
        return run_site(site, self.root, self.home, lambda *told: None, apply=apply, steps=steps, **how)

    def machine(self, name: str) -> Machine:
        return Machine(login_of(machines_of(load_site(self.file), self.home)[name]), site_folder(self.home))

    def said(self, name: str, *argv: str) -> str:
        """What a command of root says on a VM."""
        with self.machine(name) as machine:
            return machine.run(Command(argv)).stdout.strip()

    def mlops(self, *words: str, given: str = "") -> tuple[int, str]:
        """Run the command in the checkout; returns its status and what it printed."""
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "MLOPS_HOME": str(self.home), "NO_COLOR": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "cli", *words],
            cwd=self.root,
            env=environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


def states(outcomes: dict[Key, Outcome]) -> dict[str, str]:
    return {f"{machine} {name}": outcome.state for (machine, name), outcome in outcomes.items()}


def errors(outcomes: dict[Key, Outcome]) -> dict[Key, str]:
    return {key: str(outcome.error) for key, outcome in outcomes.items() if outcome.error}


@pytest.fixture(scope="module")
def bare(machines_can_be_made: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VmSite]:
    image = cloud_image()
    with (
        open_host(tmp_path_factory.mktemp("lab") / "lab") as (lab, host),
        served(image, f"{lab.network}.1") as url,
    ):
        yield VmSite(lab, host, url, tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def site(bare: VmSite) -> VmSite:
    outcomes = bare.run(apply=True)
    assert errors(outcomes) == {}, bare.host.run("journalctl", "--no-pager", "-n", "60")
    return bare


def test_a_plan_makes_no_machine_and_says_that_it_comes_first(bare: VmSite) -> None:
    code, told = bare.mlops("site", "plan", "--machine", "worker")
    assert code == 2
    assert "make VM worker  (is not there)" in told
    assert "worker: base: left out vm of worker comes first" in told
    assert "seed" not in bare.host.run("find", "/var/lib")


def test_what_is_made_is_as_asked_for_and_a_second_run_changes_nothing(site: VmSite) -> None:
    assert set(states(site.run(apply=True)).values()) == {State.FITS}


def test_a_machine_is_who_its_seed_says(site: VmSite) -> None:
    address = load_site(site.file).vms["worker"].address
    assert site.said("worker", "hostname") == "worker"
    assert f"inet {address}/24" in site.said("worker", "ip", "-4", "-o", "address")
    assert "DataSourceNoCloud" in site.said("worker", "cat", "/run/cloud-init/result.json")
    # As cloud-init of Debian 12 says it, and as that of Debian 13.
    assert re.search("Valid (cloud-config|schema user-data)", site.said("worker", "cloud-init", "schema", "--system"))
    # The host key is the one made here: the engine has let in no other.
    public = (site_folder(site.home) / "host-keys/worker.pub").read_text().split()[1]
    assert public in site.said("worker", "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
    assert site.said("worker", "sh", "-c", "ls /etc/ssh/ssh_host_*_key") == "/etc/ssh/ssh_host_ed25519_key"
    assert "passwordauthentication no" in site.said("worker", "sshd", "-T")
    assert site.said("worker", "sh", "-c", "getent shadow mlops | cut -d: -f2").startswith("!")
    # The image has 2 GiB, the disk 5.
    assert int(site.said("worker", "df", "--output=size", "-B1", "/").split()[-1]) > 4 << 30


def test_its_host_shows_its_secrets_to_nobody(site: VmSite) -> None:
    folder = "/var/lib/mlops/vms/worker"
    modes = site.host.run("stat", "-c", "%n %a %U %G", f"{folder}/seed.iso", f"{folder}/disk.qcow2").splitlines()
    assert modes == [f"{folder}/seed.iso 640 root mlops-vm", f"{folder}/disk.qcow2 600 mlops-vm mlops-vm"]
    key = (site_folder(site.home) / "host-keys/worker").read_text().splitlines()[2]
    assert key not in site.host.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; journalctl --no-pager")
    assert set(site.host.run("ps", "-o", "user=", "-C", "qemu-system-x86").split()) == {"mlops-vm"}


def test_the_share_is_mounted_from_one_machine_on_the_other(site: VmSite) -> None:
    mounted = site.said("worker", "findmnt", "--noheadings", "--types", "cifs", "--output", "SOURCE,OPTIONS")
    assert mounted.startswith(f"//{load_site(site.file).vms['storage'].address}/sambashare")
    assert "vers=3.1.1" in mounted
    assert site.said("worker", "stat", "--format=%a %u", f"{MOUNTED}/dvc") == "2770 10001"
    write = f"echo weights >{MOUNTED}/dvc/model && sync {MOUNTED}/dvc/model"
    site.said("worker", "setpriv", "--reuid=10001", "--regid=10001", "--clear-groups", "sh", "-c", write)
    assert site.said("storage", "cat", "/srv/samba/sambashare/dvc/model") == "weights"


def test_a_wrong_password_is_told_and_the_right_one_mends_it(site: VmSite) -> None:
    path = site.home / "share-password"
    right = path.read_text()
    path.write_text("wrong\n")
    try:
        outcome = site.run(apply=True, machines=["worker"], names=["mounts"])["worker", "mounts"]
    finally:
        path.write_text(right)
    assert outcome.state is State.FAILED
    assert "Permission denied" in str(outcome.error)
    assert "wrong" not in str(outcome.error)
    assert site.run(apply=True, machines=["worker"], names=["mounts"])["worker", "mounts"].state is State.CHANGED


def test_a_new_password_reaches_what_has_the_share_already(site: VmSite) -> None:
    # As a container has it: a mount of its own of what was mounted when it began.
    has = f"mount --bind {MOUNTED} /media && {{ sleep infinity & }}"
    of_its_own = ("--property=PrivateMounts=yes", "--property=Type=forking")
    site.said("worker", "systemd-run", "--quiet", "--unit=holder", *of_its_own, "sh", "-c", has)
    process = site.said("worker", "systemctl", "show", "-P", "MainPID", "holder")
    holder = ("nsenter", f"--target={process}", "--mount", "sh", "-c")
    try:
        site.said("worker", *holder, "echo first >/media/dvc/held")
        (site.home / "share-password").write_text("another-9c51\n")
        source = f"//{load_site(site.file).vms['storage'].address}/sambashare"
        outcomes = site.run(apply=True, names=["storage", "mounts"])
        assert errors(outcomes) == {}
        assert outcomes["worker", "mounts"].changes[-2].what == f"mount {source} over what is mounted at {MOUNTED}"
        # By what it was logged in before, nobody gets in any more.
        site.said("storage", "systemctl", "restart", "smbd")
        assert site.said("worker", "cat", f"{MOUNTED}/dvc/held") == "first"
        site.said("worker", *holder, "echo second >/media/dvc/held")
        assert site.said("storage", "cat", "/srv/samba/sambashare/dvc/held") == "second"
        outcome = site.run(apply=True, names=["mounts"])["worker", "mounts"]
        assert outcome.state is State.FITS
        assert [change.what for change in outcome.changes] == ["restart worker when nothing runs there"]
        # What becomes of the machine's mount is nothing to it.
        site.said("worker", "systemctl", "stop", "mnt-sambashare.mount")
        assert site.said("worker", *holder, "cat /media/dvc/held") == "second"
    finally:
        site.said("worker", "systemctl", "stop", "holder")


def test_a_share_that_is_not_mounted_is_found_and_mounted_again(site: VmSite) -> None:
    site.said("worker", "systemctl", "stop", "mnt-sambashare.automount", "mnt-sambashare.mount")
    assert site.run(apply=False)["worker", "mounts"].state is State.DIFFERS
    assert site.run(apply=True, only_repairs=True)["worker", "mounts"].state is State.CHANGED
    assert site.said("worker", "cat", f"{MOUNTED}/dvc/model") == "weights"


def offer(site: VmSite, name: str, package: str, files: dict[str, bytes], folder: Path) -> None:
    """Make a package, and have a VM's apt know it."""
    for path, data in files.items():
        (folder / "root" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "root" / path).write_bytes(data)
    control = folder / "root/DEBIAN/control"
    control.parent.mkdir(mode=0o755)
    about = f"Package: {package}\nVersion: 1\nArchitecture: amd64\nMaintainer: tests\nDescription: modules\n"
    control.write_text(about)
    (control.parent / "postinst").write_text("#!/bin/sh\ndepmod\n")
    (control.parent / "postinst").chmod(0o755)
    built = folder / "one.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(folder / "root"), str(built)], check=True)
    entry = f"{about}Filename: ./one.deb\nSize: {built.stat().st_size}\nSHA256: {sha256(built)}\n"
    there = PurePosixPath("/opt/offered")
    with site.machine(name) as machine:
        machine.upload(Upload(there / "one.deb", built, sha256(built)))
        source = File(PurePosixPath("/etc/apt/sources.list.d/offered.list"), f"deb [trusted=yes] file:{there} ./\n")
        machine.run_all([File(there / "Packages", entry), source])


def test_modules_that_a_kernel_comes_without_are_installed_from_their_own_package(site: VmSite, tmp_path: Path) -> None:
    release = site.said("worker", "uname", "-r")
    module = site.said("worker", "modinfo", "--field=filename", "nls_utf8")
    with site.machine("worker") as machine:
        held = machine.read(PurePosixPath(module))
    assert held
    site.said("worker", "sh", "-ec", f"rm {module}; depmod")
    for word in ("stop", "start"):  # what is loaded already stays until then
        assert site.mlops("site", word, "worker")[0] == 0
    assert errors(site.run(apply=True, machines=["worker"], names=["ready"])) == {}
    lost = site.run(apply=True, machines=["worker"], names=["mounts"])["worker", "mounts"]
    assert f"Unable to locate package linux-modules-extra-{release}" in str(lost.error)
    offer(site, "worker", f"linux-modules-extra-{release}", {module.lstrip("/"): held}, tmp_path)
    found = site.run(apply=True, only_repairs=True)["worker", "mounts"]
    assert (found.state, found.error) == (State.CHANGED, None)
    assert (found.changes[0].what, found.changes[0].why) == (
        f"install linux-modules-extra-{release}",
        "the kernel has no nls_utf8",
    )
    assert site.said("worker", "cat", f"{MOUNTED}/dvc/model") == "weights"


def test_what_a_running_machine_cannot_be_given_is_told(site: VmSite) -> None:
    text = site.file.read_text()
    site.file.write_text(text.replace("102, memory_mb: 640, disk_gb: 5", "102, memory_mb: 704, disk_gb: 6"))
    try:
        outcomes = site.run(apply=True, machines=["worker"])
    finally:
        site.file.write_text(text)
    told = str(outcomes["worker", "pending"].error)
    assert "its unit lacks `-m 704`; it runs" in told
    assert "has 5 GiB, 6 are wanted; it runs" in told
    assert "`mlops site stop worker`, then `mlops site apply`" in told
    # Nothing else waits for that.
    assert outcomes["worker", "mounts"].state is State.FITS


def test_a_machine_that_cannot_be_made_is_undone_unless_it_is_to_be_kept(site: VmSite) -> None:
    text = site.file.read_text()
    network = site.host.address.rpartition(".")[0]
    more = f"  broken: {{host: main, address: {network}.103, memory_mb: 64000000, disk_gb: 5, cpus: 1}}\n"
    site.file.write_text(text + more)
    try:
        told = errors(site.run(apply=True, machines=["broken"]))["broken", "vm"]
        assert "phys-bits too low" in told  # QEMU's own words
        assert "was undone: make VM broken" in told
        assert "broken" not in site.host.run("find", "/var/lib/mlops", "/etc/systemd/system")
        assert ("broken", "vm") in errors(site.run(apply=True, machines=["broken"], keep=True))
        assert "broken/disk.qcow2" in site.host.run("find", "/var/lib/mlops")
        code, printed = site.mlops("site", "destroy", "broken", given="worker\n")
        assert code == 1
        assert "nothing is destroyed" in printed
        assert "Its disk, 5 GiB on main." in printed
        assert site.mlops("site", "destroy", "broken", given="broken\n")[0] == 0
        assert "broken" not in site.host.run("find", "/var/lib/mlops", "/etc/systemd/system")
    finally:
        site.file.write_text(text)
    assert "is no VM of configs/site.yaml" in site.mlops("site", "destroy", "main", given="main\n")[1]


def test_after_a_power_cut_everything_is_there_again_whatever_starts_first(site: VmSite) -> None:
    booted = site.said("worker", "cat", "/proc/sys/kernel/random/boot_id")
    site.host.cut_power()
    # This one waits for somebody to start it, while the worker, which mounts from it, is there with the host.
    (site.host.root / "etc/systemd/system/multi-user.target.wants/mlops-vm-storage.service").unlink()
    site.host.boot()
    site.host.wait()
    outcomes = site.run(apply=True, only_repairs=True)
    assert errors(outcomes) == {}
    assert [change.what for change in outcomes["storage", "vm"].changes] == ["start VM storage"]
    assert {key for key, outcome in outcomes.items() if outcome.state is State.CHANGED} <= {
        ("storage", "vm"),
        ("storage", "ready"),
        ("worker", "ready"),
    }
    assert site.said("worker", "cat", "/proc/sys/kernel/random/boot_id") != booted
    assert site.said("worker", "cat", f"{MOUNTED}/dvc/model") == "weights"


def test_a_machine_that_is_off_takes_on_what_the_file_says_and_is_shut_down_in_order(site: VmSite) -> None:
    assert site.mlops("site", "stop", "worker")[0] == 0
    # All of it: Debian 13 asks its console for a size first, on the same line, and the journal would call that a blob.
    assert "Power down" in site.host.run("journalctl", "--no-pager", "--all", "-u", "mlops-vm-worker", "-n", "40")
    text = site.file.read_text()
    site.file.write_text(text.replace("102, memory_mb: 640, disk_gb: 5", "102, memory_mb: 704, disk_gb: 6"))
    outcome = site.run(apply=True, machines=["worker"], names=["vm"])["worker", "vm"]
    assert [change.what for change in outcome.changes] == [
        "define VM worker anew",
        "make the disk of VM worker larger",
        "start VM worker",
    ]
    assert site.run(apply=True, machines=["worker"], names=["pending"])["worker", "pending"].state is State.FITS
