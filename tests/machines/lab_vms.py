"""A host of virtual machines in the laboratory: a machine of systemd-nspawn with a hypervisor, its network a bridge.

Its VMs are emulated (TCG), with kernels of their own; they are in the laboratory's network as all other machines.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.server
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from lab import RELEASE, Lab, LabMachine, base_image, cache_folder, mirror, open_lab, run

PACKAGES = ("qemu-system-x86", "qemu-utils", "socat", "genisoimage")
BRIDGE = "br0"
_INSTALL = """\
set -e
root=$1
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp "$root/etc/apt/sources.list" "$root/sources"
echo "deb $2 $3 main" >"$root/etc/apt/sources.list"
chroot "$root" apt-get update -qq
shift 3
chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"
mv "$root/sources" "$root/etc/apt/sources.list"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/archives/*.deb
echo 'c /dev/net/tun 0666 root root - 10:200' >"$root/etc/tmpfiles.d/tun.conf"
"""


def host_layers(packages: Sequence[str] = PACKAGES) -> tuple[Path, ...]:
    """Return the layers of a host's disk: packages over the base of all machines; made once, in about half a minute."""
    base, cache = base_image(), cache_folder()
    recipe = "\n".join((base.name, *packages, _INSTALL))
    layer = cache / f"host-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    with (cache / "host.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not layer.exists():
            draft = cache / "host-draft"
            shutil.rmtree(draft, ignore_errors=True)
            for name in ("root", "upper", "work"):
                (draft / name).mkdir(parents=True)
            options = f"lowerdir={base},upperdir={draft}/upper,workdir={draft}/work"
            run("mount", "-t", "overlay", "overlay", "-o", options, str(draft / "root"))
            try:
                install = ("sh", "-c", _INSTALL, "sh", str(draft / "root"), mirror(), RELEASE, *packages)
                run(*install, timeout=600)
            finally:
                run("umount", str(draft / "root"))
            (draft / "upper").rename(layer)
            shutil.rmtree(draft)
    return layer, base


@contextmanager
def open_host(folder: Path, layers: Sequence[Path] = ()) -> Iterator[tuple[Lab, LabMachine]]:
    """Yield a laboratory and its one machine ``main``, which can run VMs on the bridge ``br0``.

    Args:
        layers: of its disk; left out: those with QEMU.
    """
    with open_lab(folder, layers or host_layers()) as lab:
        (host,) = lab.add("main")
        attach(host)
        yield lab, host


def attach(host: LabMachine) -> None:
    """Make the bridge of a host's VMs, and attach it to the laboratory's network."""
    host.ip("link", "add", BRIDGE, "type", "bridge")
    host.ip("link", "set", BRIDGE, "up")
    host.ip("address", "flush", "dev", "eth0")
    host.ip("link", "set", "eth0", "master", BRIDGE)
    host.ip("address", "add", f"{host.address}/24", "dev", BRIDGE)
    host.wait()


@contextmanager
def served(file: Path, address: str) -> Iterator[str]:
    """Serve the file's folder over HTTP while the block runs; yields the file's address."""
    handler = partial(_Quiet, directory=str(file.parent))
    with http.server.ThreadingHTTPServer((address, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{address}:{server.server_port}/{file.name}"
        finally:
            server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        """Say nothing."""
