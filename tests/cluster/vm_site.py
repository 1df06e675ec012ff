"""A site whose one worker is a virtual machine, with a kernel of its own that mounts the share: all made by the steps.

Storage, registry, control plane and the VM's host are machines of systemd-nspawn. The VM is QEMU's, emulated; it comes
bare from a cloud image, with packages from a signed mirror that the site's file names.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import base_images
from cloud_image import cloud_image, sha256
from kube_images import push
from kube_site import KubeSite
from lab import Lab, base_image, open_lab
from lab_vms import BRIDGE, attach, host_layers, served

from infra.kubernetes.manifests import CODE
from infra.machines.commands import Command
from infra.machines.host_keys import pin
from infra.machines.ssh import Machine
from infra.site.engine import Key, Outcome
from infra.site.inventory import machines_of, site_folder
from infra.site.session import login_of

VM = "worker"
IMAGE = "kubernetes/share-user:1"
SHARE = "/mnt/sambashare"
STORE = "srv/samba/sambashare"
"""The share's folder on the machine ``storage``."""
_STORAGE = "storage: {kind: directory, path: .mlops/share}\n"
_SMB = """\
storage:
  kind: smb
  url: smb://alice@{storage}/sambashare/dvc
  password: {{file: .mlops/share-password}}
"""
_HOSTS = """\
  storage: {{address: {storage}, roles: [storage], ssh: {{user: admin, key: {key}}}}}
  main:
    address: {main}
    vms: qemu
    accelerator: tcg
    bridge: {bridge}
    ssh: {{user: admin, key: {key}}}
packages:
  sources: [{{url: '{mirror}', suites: [/], keyring: configs/mirror.asc}}]
cluster:
  images: {{run: '{registry}/{image}'}}
  state: {{host_path: /var/lib/mlops/state, node: {vm}}}
  training: {{node_selector: {{kubernetes.io/hostname: {vm}}}}}
"""
_VMS = """\
vm_image: {{url: '{mirror}/cloud.qcow2', sha256: {sha256}}}
vms:
  {vm}: {{host: main, address: {network}.101, memory_mb: 2560, disk_gb: 8, cpus: 2, roles: [worker]}}
"""
# What `infra.repository.share` imports.
_PACKAGES: tuple[str, ...] = (
    "annotated_types",
    "configobj",
    "pydantic",
    "pydantic_core",
    "typing_extensions.py",
    "typing_inspection",
)
_PACKAGES += ("validate", "yaml")


class VmSite:
    """The machines, and the checkout whose site they are; ``kube`` is the part of it that nspawn's machines are."""

    def __init__(self, lab: Lab, folder: Path, binaries: Path, etcd: Path, flannel: Path, mirror: str) -> None:
        self.lab, self.mirror = lab, mirror
        self.storage, self.host = lab.machines["storage"], lab.machines["main"]
        values = {"storage": self.storage.address, "main": self.host.address, "key": lab.key, "bridge": BRIDGE}
        hosts = _HOSTS.replace("{mirror}", mirror).replace("{image}", IMAGE).replace("{vm}", VM)
        self.kube = KubeSite(
            lab,
            folder / "checkout",
            binaries,
            etcd,
            {"master": "control-plane"},
            lambda registry: hosts.format(registry=registry, **values),
            flannel=flannel,
        )
        self.file, self.home = self.kube.file, self.kube.home
        text = self.file.read_text()
        assert _STORAGE in text
        self.file.write_text(text.replace(_STORAGE, _SMB.format(storage=self.storage.address)))
        shutil.copy(folder / "mirror.asc", self.file.parent)
        for machine in (self.storage, self.host):
            pin(site_folder(self.home), machine.name, [machine.host_key])
        offer([base_image() / "repo", self.kube.offered], folder / "mirror", folder / "keys")

    def begin(self) -> None:
        """Make what the VM needs: a registry with the images, and only then let the site's file name the VM."""
        self.kube.begin()
        with self.kube.registry() as client:
            push(client, IMAGE, *_share_user(self.kube.root / "share-user"))
        values = {"mirror": self.mirror, "sha256": sha256(cloud_image()), "network": self.lab.network, "vm": VM}
        self.file.write_text(self.file.read_text() + _VMS.format(**values))

    def run(
        self, *, apply: bool, machines: Sequence[str] = (), names: Sequence[str] = (), checks: bool = False
    ) -> dict[Key, Outcome]:
        """Run the site's steps, of some machines or of some names; empty: of all."""
        steps = [
            step
            for step in self.kube.steps()
            if (not machines or step.machine in machines) and (not names or step.name in names)
        ]
        return self.kube.run(apply=apply, steps=steps, checks=checks)

    def said(self, *argv: str, timeout_s: float = 120, accepted: Sequence[int] = (0,)) -> str:
        """What a command of root says on the VM."""
        there = machines_of(self.kube.site, self.home)[VM]
        with Machine(login_of(there), site_folder(self.home)) as machine:
            return machine.run(Command(argv, timeout_s=timeout_s, accepted=frozenset(accepted))).stdout.strip()

    def cut_power(self) -> None:
        """End the VM at once, and have it off until :meth:`power_on`."""
        unit = f"mlops-vm-{VM}.service"
        self.host.run("systemctl", "stop", "--no-block", unit)
        self.host.run("systemctl", "kill", "--signal=KILL", unit)
        self.host.run("systemctl", "stop", unit)

    def power_on(self) -> None:
        """Start the VM, as its host does when it starts itself."""
        self.host.run("systemctl", "start", f"mlops-vm-{VM}.service")


@contextmanager
def open_site(folder: Path, binaries: Path, etcd: Path, flannel: Path) -> Iterator[VmSite]:
    """Yield the site, its machines bare."""
    (folder / "mirror").mkdir(parents=True)
    (folder / "mirror/cloud.qcow2").symlink_to(cloud_image())
    with open_lab(folder / "lab", host_layers()) as lab:
        lab.add("storage", "main")
        attach(lab.machines["main"])
        _make_key(folder)
        with served(folder / "mirror/cloud.qcow2", f"{lab.network}.1") as url:
            yield VmSite(lab, folder, binaries, etcd, flannel, url.rpartition("/")[0])


def offer(sources: Sequence[Path], mirror: Path, keys: Path) -> None:
    """Make of folders with packages and their lists a flat repository that is signed.

    Args:
        keys: GnuPG's folder.
    """
    for package in (path for source in sources for path in source.glob("*.deb")):
        (mirror / package.name).symlink_to(package)
    listed = mirror / "Packages"
    listed.write_text("\n".join((source / "Packages").read_text().strip() + "\n" for source in sources))
    digest = hashlib.sha256(listed.read_bytes()).hexdigest()
    date = time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime())
    release = f"Origin: the tests\nDate: {date}\nSHA256:\n {digest} {listed.stat().st_size} Packages\n"
    signed = _gpg(keys, "--clearsign", given=release)
    (mirror / "InRelease").write_text(signed)


def _make_key(folder: Path) -> None:
    keys = folder / "keys"
    keys.mkdir(mode=0o700)
    _gpg(keys, "--passphrase", "", "--quick-generate-key", "mirror of the tests", "rsa2048", "sign", "1d")
    (folder / "mirror.asc").write_text(_gpg(keys, "--armor", "--export"))


def _gpg(keys: Path, *words: str, given: str = "") -> str:
    command = ["gpg", "--homedir", str(keys), "--batch", "--quiet", "--pinentry-mode=loopback", *words]
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=True, timeout=120)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(keys), "--kill", "all"], check=False, capture_output=True)
    return done.stdout


def _share_user(root: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Return files and links of an image with this project's code, without what trains."""
    base_images.make_root(root)
    code = root / CODE.lstrip("/")
    for name in ("configs", "infra"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(__file__).parents[2] / name, code / name, ignore=ignored)
    there = Path(sysconfig.get_path("purelib"))
    for name in _PACKAGES:
        if (there / name).is_dir():
            shutil.copytree(there / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(there / name, code / name)
    for library in base_images._libraries(code.rglob("*.so")):
        base_images._copy(library, root)
    # An emulated processor would be at it for a minute, at each start.
    compile_all = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash", str(root)]
    subprocess.run(compile_all, check=False, capture_output=True, timeout=300)
    python = Path(sys.base_prefix, "bin/python3").relative_to("/")
    found = sorted(root.rglob("*"))
    links = {str(path.relative_to(root)): str(path.readlink()) for path in found if path.is_symlink()}
    files = {str(path.relative_to(root)): path for path in found if path.is_file() and not path.is_symlink()}
    return files, {**links, "usr/local/bin/python": f"/{python}"}
