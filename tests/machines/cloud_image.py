"""A cloud image for tests, made as distributions make theirs: a partition, GRUB, a kernel, cloud-init, no account.

All that the steps under test install is in it already: apt in an emulated machine takes minutes.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from lab import RELEASE, cache_folder, mirror, run

PACKAGES = ("systemd", "systemd-sysv", "systemd-resolved", "libpam-systemd", "dbus", "udev", "iproute2", "kmod")
PACKAGES += ("linux-image-cloud-amd64", "initramfs-tools", "zstd", "grub-pc-bin", "grub-common")
PACKAGES += (
    "cloud-init",
    "cloud-guest-utils",
    "fdisk",
    "netplan.io",
    "openssh-server",
    "sudo",
    "ca-certificates",
    "curl",
)
PACKAGES += ("chrony", "nftables", "samba", "smbclient", "cifs-utils")
SIZE_MB = 2048
_START = 2048
"""Of the one partition, in sectors of 512 bytes: GRUB's core lies before it."""
_SETUP = """\
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
printf 'MODULES=list\\nCOMPRESS=zstd\\n' >"$1/etc/initramfs-tools/conf.d/cloud"
printf 'virtio_pci\\nvirtio_blk\\next4\\n' >"$1/usr/share/initramfs-tools/modules.d/cloud"
"""
_CUSTOMIZE = """\
set -e
echo 'LABEL=cloud / ext4 rw,errors=remount-ro 0 1' >"$1/etc/fstab"
: >"$1/etc/machine-id"
rm -rf "$1"/etc/ssh/ssh_host_* "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*
echo localhost >"$1/etc/hostname"
chroot "$1" systemctl --quiet enable systemd-networkd systemd-resolved
chroot "$1" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer
mkdir -p "$1/boot/grub"
cat >"$1/boot/grub/grub.cfg" <<'END'
linux /vmlinuz root=LABEL=cloud ro console=ttyS0 mitigations=off quiet
initrd /initrd.img
boot
END
"""
_ASSEMBLE = f"""\
set -e
disk="$1/disk"
truncate -s {SIZE_MB}M "$disk"
echo 'start={_START}, type=83, bootable' | chroot "$1" sfdisk --quiet /disk
# GRUB is its first sector, the sectors after it, and what it reads in /boot/grub.
chroot "$1" grub-mkimage -O i386-pc -p '(hd0,msdos1)/boot/grub' -o /core.img \\
    biosdisk part_msdos ext2 normal linux boot
dd if="$1/usr/lib/grub/i386-pc/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
dd if="$1/core.img" of="$disk" bs=512 seek=1 conv=notrunc status=none
mv "$disk" "$2"
rm "$1/core.img"
mke2fs -q -t ext4 -L cloud -d "$1" -E offset=$(({_START} * 512)),lazy_itable_init=1 "$2" \\
    $(({SIZE_MB} * 1024 - {_START} / 2))k
"""


def cloud_image() -> Path:
    """Return the image, in qcow2; made once for each version of its recipe, in about a minute."""
    recipe = "\n".join((RELEASE, *PACKAGES, _SETUP, _CUSTOMIZE, _ASSEMBLE))
    cache = cache_folder()
    image = cache / f"cloud-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.qcow2"
    with (cache / "cloud.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            draft = cache / "cloud-draft"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            _make(draft)
            (draft / "image.qcow2").rename(image)
            shutil.rmtree(draft)
    return image


def _make(draft: Path) -> None:
    root, raw = draft / "root", draft / "image.raw"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(PACKAGES)}"]
    command += ["--aptopt=Apt::Install-Recommends false", "--dpkgopt=path-exclude=/usr/share/doc/*"]
    command += ["--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/man/*"]
    command += [f"--setup-hook={_SETUP}", f"--customize-hook={_CUSTOMIZE}"]
    run(*command, RELEASE, str(root), mirror(), timeout=900)
    run("sh", "-c", _ASSEMBLE, "sh", str(root), str(raw), timeout=300)
    run("qemu-img", "convert", "-O", "qcow2", str(raw), str(draft / "image.qcow2"), timeout=300)


def sha256(path: Path) -> str:
    """Return a file's checksum as publishers of images write it."""
    return subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True).stdout.split()[0]
