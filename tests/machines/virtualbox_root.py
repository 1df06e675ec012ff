"""VirtualBox 7 on a laboratory machine: Debian's newest, in a root of its own, for its release here has none.

It is VirtualBox itself, without its kernel module: all of it works but the start of a VM. Its commands on the machine
change into that root and go on there; what they share with the machine is mounted into it.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from pathlib import Path

from lab import LabMachine, cache_folder, mirror, run

RELEASE = "sid"
PACKAGES = ("virtualbox", "ca-certificates")
PLACE = "/srv/virtualbox"
SHARED = ("/proc", "/sys", "/dev", "/tmp", "/root", "/var/lib/mlops")
COMMANDS = ("/usr/bin/VBoxManage", "/usr/bin/VBoxHeadless", "/usr/lib/virtualbox/VBoxSVC")
_WRAPPER = '#!/bin/sh\nexec chroot {place} {command} "$@"\n'


def virtualbox_layer() -> Path:
    """Return a layer of a machine's disk with VirtualBox in it; made once for each version of its recipe."""
    recipe = "\n".join((RELEASE, *PACKAGES, PLACE, *COMMANDS, _WRAPPER))
    layer = cache_folder() / f"virtualbox-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    with (cache_folder() / "virtualbox.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not layer.exists():
            draft = layer.with_name("virtualbox-draft")
            shutil.rmtree(draft, ignore_errors=True)
            Path(f"{draft}{PLACE}").parent.mkdir(parents=True)
            command = ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", "--components=main,contrib"]
            # Signed, and that is checked; a mirror of the newest packages that lags behind says it is too old.
            command += ['--aptopt=Acquire::Check-Valid-Until "false"', f"--include={','.join(PACKAGES)}"]
            run(*command, RELEASE, f"{draft}{PLACE}", mirror(), timeout=1800)
            for name in COMMANDS:
                wrapper = draft / name.lstrip("/")
                wrapper.parent.mkdir(parents=True, exist_ok=True)
                wrapper.write_text(_WRAPPER.format(place=PLACE, command=name))
                wrapper.chmod(0o755)
            draft.rename(layer)
    return layer


def share(machine: LabMachine) -> None:
    """Mount into VirtualBox's root what it shares with its machine."""
    for path in SHARED:
        machine.run("mkdir", "-p", path, f"{PLACE}{path}")
        machine.run("mount", "--rbind", path, f"{PLACE}{path}")
