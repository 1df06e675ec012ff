"""Machines for tests: Debian with systemd, sshd and apt, each in a container of systemd-nspawn behind one bridge.

They share this machine's kernel, and boot in a second. What apt installs comes from a folder in each machine, so no
machine needs a network; a power cut is the kill of a machine's first process, and with it of all others.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

RELEASE = os.environ.get("MLOPS_TEST_DEBIAN", "bookworm")
"""Debian's release that the machines are of."""
SYSTEM = ("systemd", "systemd-sysv", "libpam-systemd", "dbus", "openssh-server", "sudo", "ca-certificates")
SYSTEM += ("iproute2", "procps", "apt-utils")
# Every machine with a kernel has it, by kmod. Debian 13's systemd does not bring it: a node's unit of modules failed.
SYSTEM += ("libkmod2",)
OFFERED = ("samba", "smbclient", "docker-registry", "apache2-utils", "curl", "nftables", "cifs-utils", "containerd")
OFFERED += ("conntrack", "ethtool", "iptables", "kmod", "mount", "socat", "chrony")
OFFERED += ("age", "etcd-client", "etcd-server", "openssl")
SLOTS = 8
_OPTIONS = ("-oBatchMode=yes", "-oConnectTimeout=5", "-oStrictHostKeyChecking=no", "-oLogLevel=ERROR")
_OPTIONS += ("-oUserKnownHostsFile=/dev/null",)
_HOOK = """\
set -e
cp /etc/resolv.conf "$1/etc/resolv.conf"
mkdir "$1/repo"
# As for a system that has nothing yet: what the machines have already is offered, too, as in any Debian archive.
: >"$1/tmp/status"
chroot "$1" apt-get install -qq -y --no-install-recommends --download-only -o Dir::State::status=/tmp/status {packages}
rm "$1/tmp/status"
mv "$1"/var/cache/apt/archives/*.deb "$1/repo/"
chroot "$1" sh -c 'cd /repo && apt-ftparchive packages . >Packages'
rm -rf "$1"/etc/apt/sources.list.d/* "$1"/var/lib/apt/lists/* "$1"/etc/ssh/ssh_host_*
echo 'deb [trusted=yes] file:///repo ./' >"$1/etc/apt/sources.list"
# Their machine-id is made at the first boot; addresses are given from outside.
: >"$1/etc/machine-id"
ln -sf /dev/null "$1/etc/systemd/system/systemd-networkd.service"
chroot "$1" useradd --create-home --shell /bin/bash admin
echo 'admin ALL=(ALL) NOPASSWD: ALL' >"$1/etc/sudoers.d/admin"
"""
# systemd-nspawn keeps these from a machine; kubelet, containerd and what they start have to write there.
_NODE_INIT = """\
for folder in /sys/fs/cgroup /sys/fs/cgroup/*/; do mount -o remount,bind,rw "$folder"; done
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,rw /proc/sys/net
[ -e /dev/kmsg ] || mknod /dev/kmsg c 1 11
exec /lib/systemd/systemd
"""
# The kernel lets nobody here lower a score, and containerd tries to.
_RUNC = """\
#!/bin/sh
for word; do
  [ "$before" != --bundle ] || sed -i 's/"oomScoreAdj":-[0-9]*/"oomScoreAdj":0/' "$word/config.json"
  before=$word
done
exec /usr/sbin/runc "$@"
"""


class LabError(Exception):
    """A machine cannot be made or does not start."""


def base_image() -> Path:
    """Return the folder that all machines are clones of; made once for each version of its recipe, in about 20 s."""
    recipe = "\n".join((RELEASE, *SYSTEM, *OFFERED, _HOOK))
    cache = cache_folder()
    base = cache / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not base.exists():
            draft = cache / "draft"
            _unmount_below(draft)
            shutil.rmtree(draft, ignore_errors=True)
            hook = _HOOK.format(packages=" ".join(OFFERED))
            command = ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(SYSTEM)}"]
            command += ["--aptopt=Apt::Install-Recommends false", "--skip=cleanup/apt", f"--customize-hook={hook}"]
            run(*command, RELEASE, str(draft), mirror(), timeout=600)
            draft.rename(base)
    return base


def _unmount_below(folder: Path) -> None:
    """Unmount what a build that was killed has left there: else `/dev` and `/sys` would be emptied with the folder."""
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in sorted((place for place in places if Path(place).is_relative_to(folder)), reverse=True):
        run("umount", "--lazy", place)


def cache_folder() -> Path:
    """Return the folder of what is made once and kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubernetes-mlops" / "machines"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def mirror() -> str:
    """Return where this machine gets Debian from."""
    asked = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Identifier: Packages")
    rows = [line.split() for line in asked.splitlines()]
    for row in rows:
        if row[1:] == [RELEASE, "main"]:
            return row[0]
    return "http://deb.debian.org/debian"


@dataclass
class LabMachine:
    """A machine; ``root`` is its disk as this machine sees it.

    Attributes:
        node: kubelet is to run there: all control groups are its own, and images have a disk that overlays can be on.
        shared: folders of this machine that are there as well, by their path there; nobody can write to them there.
        common: such folders that all of them write to, as to a mounted share.
    """

    name: str
    address: str
    folder: Path
    key: Path
    host_key: str = ""
    node: bool = False
    shared: dict[str, Path] = field(default_factory=dict)
    common: dict[str, Path] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def disk(self) -> Path:
        """What holds all that it writes."""
        return self.folder / "disk"

    @property
    def console(self) -> str:
        """What it printed while it booted."""
        path = self.folder / "console"
        return path.read_text(errors="replace") if path.exists() else ""

    def boot(self) -> None:
        """Start it; returns at once, see :meth:`wait`."""
        script = (
            'for group in $LAB_GROUPS; do echo $$ >"$group/cgroup.procs"; done; mount -t tmpfs tmpfs /run; exec "$@"'
        )
        spawn = (
            "systemd-nspawn",
            "--register=no",
            "--keep-unit",
            "--quiet",
            "--console=pipe",
            f"--machine={self.name}",
        )
        spawn += (f"--directory={self.root}", *(f"--bind-ro={path}:{there}" for there, path in self.shared.items()))
        spawn += tuple(f"--bind={path}:{there}" for there, path in self.common.items())
        if self.node:
            spawn += ("--capability=all", "--system-call-filter=@keyring bpf", *self._disks(), "sh", "-c", _NODE_INIT)
        else:
            spawn += ("--capability=CAP_NET_ADMIN", "--boot")
        enter = ("nsenter", f"--net=/run/netns/{_port(self.address)}", "unshare", "--mount", "--propagation=private")
        # Without a control group of its own, the systemd of each machine would wait for the others' processes.
        groups = [folder / _port(self.address) for folder in _control_groups(every=self.node)]
        for group in groups:
            _make_group(group)
        self._process = subprocess.Popen(
            [*enter, "sh", "-c", script, "sh", *spawn],
            env={**os.environ, "LAB_GROUPS": " ".join(map(str, groups))},
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "console").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self, timeout_s: float = 60) -> None:
        """Wait until ``admin`` can log in."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            with contextlib.suppress(LabError):
                self.run("true")
                return
            time.sleep(0.1)
        raise LabError(f"{self.name} does not start:\n{self.console[-3000:]}")

    def cut_power(self) -> None:
        """End all of it at once, as a power cut does."""
        if self._process is None:
            return
        for guest in _children(self._process.pid):
            os.kill(guest, signal.SIGKILL)  # the first process of its namespace: the kernel ends all the others
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def _disks(self) -> Iterator[str]:
        for name in ("containerd", "kubelet"):
            disk = self.folder / f"disk-{name}"
            disk.mkdir(exist_ok=True)
            yield f"--bind={disk}:/var/lib/{name}"

    def disconnect(self) -> None:
        """Pull its network cable."""
        run("ip", "link", "set", _port(self.address), "down")

    def connect(self) -> None:
        """Plug its network cable in again."""
        run("ip", "link", "set", _port(self.address), "up")

    def ip(self, *words: str) -> None:
        """Change its network: ``ip ...`` there."""
        run("ip", "-n", _port(self.address), *words)

    def run(self, *command: str, timeout_s: float = 60) -> str:
        """Run a command as root there, past ssh and the code under test; returns its output."""
        ssh = ("ssh", "-F/dev/null", *_OPTIONS, "-i", str(self.key), f"admin@{self.address}")
        return run(*ssh, "sudo", shlex.join(command), timeout=timeout_s)


class Lab:
    """A network of machines; ``key`` is the private key of their user ``admin``, who becomes root by sudo.

    Args:
        layers: of all machines' disks, the uppermost first; left out: the base image alone.
    """

    def __init__(self, folder: Path, slot: int, layers: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.network = f"10.77.{slot}"
        self.bridge = f"mlops-lab{slot}"
        self.key = folder / "key"
        self.machines: dict[str, LabMachine] = {}
        self._base = ":".join(map(str, layers or (base_image(),)))
        folder.mkdir(parents=True, exist_ok=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))

    def add(
        self,
        *names: str,
        nodes: Container[str] = (),
        shared: Mapping[str, Path] | None = None,
        common: Mapping[str, Path] | None = None,
        disk_mb: int | None = None,
    ) -> list[LabMachine]:
        """Make machines, start them side by side, and wait until they answer; see :class:`LabMachine`.

        Args:
            disk_mb: what they can write before their disk is full; None: as much as this machine has.
        """
        made = [self._make(name, disk_mb) for name in names]
        for machine in made:
            machine.node, machine.shared = machine.name in nodes, dict(shared or {})
            machine.common = dict(common or {})
            if machine.node:
                self._make_node(machine)
        for machine in made:
            machine.boot()
        for machine in made:
            machine.wait()
        return made

    def power_on(self, *machines: LabMachine) -> None:
        """Start machines after a power cut: bridges, rules and control groups of before are gone."""
        for machine in machines:
            _remove_control_groups(machine.address)
            if machine.node:
                self._plug_in(machine.address)
                self._wire_node(machine)
            machine.boot()
            machine.wait()

    def close(self) -> None:
        """End all machines, whatever state they are in."""
        for machine in self.machines.values():
            machine.cut_power()
            for mounted in (machine.root, machine.disk):
                subprocess.run(["umount", "--lazy", str(mounted)], check=False, capture_output=True)
            _unplug(machine.address)
            _remove_control_groups(machine.address)
        subprocess.run(["ip", "link", "delete", self.bridge], check=False, capture_output=True)

    def _make(self, name: str, disk_mb: int | None) -> LabMachine:
        address = f"{self.network}.{len(self.machines) + 11}"
        machine = self.machines[name] = LabMachine(name, address, self.folder / name, self.key)
        upper, work = machine.disk / "upper", machine.disk / "work"
        machine.disk.mkdir(parents=True)
        if disk_mb is not None:
            run("mount", "-t", "tmpfs", "-o", f"size={disk_mb}m", "tmpfs", str(machine.disk))
        for made in (upper, work, machine.root):
            made.mkdir(parents=True)
        layers = f"lowerdir={self._base},upperdir={upper},workdir={work}"
        run("mount", "-t", "overlay", "overlay", "-o", layers, str(machine.root))
        (machine.root / "etc/hostname").write_text(f"{name}\n")
        (machine.root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(machine.root / "etc/ssh/ssh_host_ed25519_key"))
        machine.host_key = (machine.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().strip()
        ssh = machine.root / "home/admin/.ssh"
        ssh.mkdir(mode=0o700)
        shutil.copy(self.key.with_suffix(".pub"), ssh / "authorized_keys")
        run("chown", "-R", "--reference", str(ssh.parent), str(ssh))
        self._plug_in(address)
        return machine

    def _make_node(self, machine: LabMachine) -> None:
        for name in ("containerd", "kubelet"):
            (machine.root / "var/lib" / name).mkdir()
        runc = machine.root / "usr/local/sbin/runc"
        runc.write_text(_RUNC)
        runc.chmod(0o755)
        self._wire_node(machine)

    def _wire_node(self, machine: LabMachine) -> None:
        # Addresses of services are reached by the way to everywhere, before they become those of pods.
        machine.ip("route", "add", "default", "via", f"{self.network}.1")
        forward = "echo 1 >/proc/sys/net/ipv4/ip_forward"
        run("nsenter", f"--net=/run/netns/{_port(machine.address)}", "sh", "-c", forward)

    def _plug_in(self, address: str) -> None:
        if not Path("/sys/class/net", self.bridge).exists():
            run("ip", "link", "add", self.bridge, "type", "bridge")
            run("ip", "address", "add", f"{self.network}.1/24", "dev", self.bridge)
            run("ip", "link", "set", self.bridge, "up")
        space = port = _port(address)
        _unplug(address)  # what a killed run of these tests left
        run("ip", "netns", "add", space)
        run("ip", "link", "add", "eth0", "netns", space, "type", "veth", "peer", "name", port)
        run("ip", "link", "set", port, "master", self.bridge, "up")
        run("ip", "-n", space, "address", "add", f"{address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            run("ip", "-n", space, "link", "set", link, "up")


@contextmanager
def open_lab(folder: Path, layers: Sequence[Path] = ()) -> Iterator[Lab]:
    """Yield an empty lab; its machines end with the block."""
    for slot in range(SLOTS):
        # A network of its own for each process that tests.
        with Path(f"/run/lock/mlops-lab{slot}").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            lab = Lab(folder, slot, layers)
            try:
                yield lab
            finally:
                lab.close()
            return
    raise LabError(f"all {SLOTS} networks for tests are in use")


def _port(address: str) -> str:
    """Return the name of a machine's end at the bridge, and of its network namespace."""
    return f"mlopslab{'-'.join(address.split('.')[2:])}"


def _control_groups(*, every: bool = False) -> list[Path]:
    """Return our own control groups in the hierarchies that systemd manages: its own of version 1, and version 2.

    Args:
        every: those of the controllers of version 1 as well.
    """
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, kind, path = line.split(":", 2)
        if kind == "name=systemd" or (every and number != "0"):
            found.append(Path("/sys/fs/cgroup", kind.removeprefix("name="), path.lstrip("/")))
        elif number == "0":
            top = Path("/sys/fs/cgroup/unified")
            found.append((top if top.is_dir() else top.parent) / path.lstrip("/"))
    return [folder for folder in found if folder.is_dir()]


def _make_group(group: Path) -> None:
    group.mkdir(exist_ok=True)
    for name in ("cpuset.cpus", "cpuset.mems"):  # without them, nothing may run there
        if (group / name).exists():
            (group / name).write_text((group.parent / name).read_text())
    if (group / "cpu.shares").exists():  # else a whole machine gets no more than one process beside it
        (group / "cpu.shares").write_text("8192")


def _remove_control_groups(address: str) -> None:
    for folder in _control_groups(every=True):
        for group in sorted((folder / _port(address)).rglob("*/"), reverse=True):
            with contextlib.suppress(OSError):
                group.rmdir()
        with contextlib.suppress(OSError):
            (folder / _port(address)).rmdir()


def _unplug(address: str) -> None:
    # A machine that outlived the tests which started it would go on in a namespace without a name.
    left = subprocess.run(["ip", "netns", "pids", _port(address)], check=False, capture_output=True, text=True)
    for pid in left.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    # The link first: with its namespace it would go as well, but some time later.
    subprocess.run(["ip", "link", "delete", _port(address)], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "delete", _port(address)], check=False, capture_output=True)


def _children(pid: int) -> list[int]:
    """Return the processes that ``pid`` has started itself."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def run(*command: str, timeout: float = 60) -> str:
    """Run a command here; returns its output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(command[:4])} ... is at work after {timeout:.0f} s") from None
    if done.returncode:
        raise LabError(f"{' '.join(command[:4])} ... failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout
