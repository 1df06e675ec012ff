"""A guest for tests of hypervisors: Debian's kernel and busybox, which boots in seconds even where it is emulated.

It takes name and address from its seed as cloud-init does, tells over HTTP what it consists of, and hears its power
button. That cloud-init itself takes a seed is tested with :mod:`cloud_image`.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from pathlib import Path

from lab import RELEASE, cache_folder, mirror, run

PACKAGES = ("linux-image-cloud-amd64", "busybox-static", "kmod", "cpio", "syslinux", "syslinux-common", "mtools")
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "isofs", "evdev", "button")
_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules); do insmod "/lib/$module"; done
mount -t iso9660 -o ro /dev/vdb /seed
hostname "$(sed -n 's/.*"local-hostname": "\\(.*\\)".*/\\1/p' /seed/meta-data)"
ip address add "$(sed -n 's/.*"\\([0-9.]*\\/[0-9]*\\)".*/\\1/p' /seed/network-config | head -n 1)" dev eth0
ip link set eth0 up
{
    echo "name $(hostname)"
    echo "cpus $(nproc)"
    echo "memory $(sed -n 's/MemTotal: *//p' /proc/meminfo)"
    for disk in /sys/block/vd*; do echo "$(basename $disk) $(($(cat $disk/size) * 512))"; done
} >/www/index.html
httpd -h /www
echo "up as $(hostname)" >/dev/ttyS0
acpid -d
"""
_BUILD = """\
set -e
root="$1"
mkdir -p "$root/ram/bin" "$root/ram/lib" "$root/ram/proc" "$root/ram/sys" "$root/ram/dev" "$root/ram/seed" \\
    "$root/ram/www" "$root/ram/etc/acpi/PWRF"
cp "$root/bin/busybox" "$root/ram/bin/"
printf %s "$2" >"$root/ram/init"
printf '#!/bin/sh\\npoweroff -f\\n' >"$root/ram/etc/acpi/PWRF/00000080"
chmod 755 "$root/ram/init" "$root/ram/etc/acpi/PWRF/00000080"
version=$(ls "$root/lib/modules")
for module in $3; do
    chroot "$root" modprobe --set-version "$version" --show-depends "$module"
done | sed -n 's/^insmod \\([^ ]*\\).*/\\1/p' | awk '!seen[$0]++' | while read -r path; do
    cp "$root$path" "$root/ram/lib/"
    basename "$path"
done >"$root/ram/modules"
chroot "$root" sh -c 'cd /ram && find . | cpio --quiet -o -H newc | gzip -1 >/initrd'
cat >"$root/syslinux.cfg" <<'END'
default linux
label linux
kernel vmlinuz
append initrd=initrd console=ttyS0 quiet
END
cp "$root"/boot/vmlinuz-* "$root/vmlinuz.here"
# The installer of the boot loader hands its files on by /proc.
mount -t proc proc "$root/proc"
trap 'umount "$root/proc"' EXIT
chroot "$root" sh -ec '
    mformat -C -i /disk -T 131072 -h 16 -s 63 ::
    mcopy -i /disk /vmlinuz.here ::vmlinuz
    mcopy -i /disk /initrd /syslinux.cfg ::
    syslinux --install /disk'
"""


def small_guest() -> Path:
    """Return the image, in qcow2; made once for each version of its recipe, in about a minute."""
    recipe = "\n".join((RELEASE, *PACKAGES, *MODULES, _INIT, _BUILD))
    cache = cache_folder()
    image = cache / f"small-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.qcow2"
    with (cache / "small.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            draft = cache / "small-draft"
            shutil.rmtree(draft, ignore_errors=True)
            command = ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(PACKAGES)}"]
            run(*command, "--aptopt=Apt::Install-Recommends false", RELEASE, str(draft), mirror(), timeout=900)
            run("sh", "-c", _BUILD, "sh", str(draft), _INIT, " ".join(MODULES), timeout=300)
            run("qemu-img", "convert", "-O", "qcow2", str(draft / "disk"), str(draft / "small.qcow2"))
            (draft / "small.qcow2").rename(image)
            shutil.rmtree(draft)
    return image
