"""How a host keeps VMs of VirtualBox running: a systemd unit for each, and one for the server that all of them need.

``VBoxManage startvm`` would make a VM a child of VBoxSVC, and VBoxSVC that of whatever asked it first: of a login by
ssh, which is ended before any unit when the host goes down. So VBoxSVC is a unit of its own, and VBoxHeadless the main
process of each VM's: the unit's state is the VM's, and at the host's shutdown its power button is pressed first.
https://www.virtualbox.org/manual/topics/vboxheadless.html, systemd.service(5).
"""

from __future__ import annotations

from pathlib import PurePosixPath

from infra.machines.commands import File
from infra.vms.machine import VirtualMachine
from infra.vms.vboxmanage import ENVIRONMENT, SHELL

UNITS = PurePosixPath("/etc/systemd/system")
SERVER = "mlops-vboxsvc.service"
STOP_S = 180
"""A guest that has not shut down by then is switched off."""

_ENVIRONMENT = "\n".join(f"Environment={name}={value}" for name, value in ENVIRONMENT.items())

_HELPER = f"""\
#!/bin/sh
# For the site's units of VirtualBox: what they wait for, and how a VM ends.
{SHELL}
case "$1" in
alone)
    # There is one server at a time; that of a command ends some seconds after it.
    for second in $(seq 30); do
        pgrep -u root -x VBoxSVC >/dev/null || exit 0
        sleep 1
    done
    echo "a VM that root has started by hand keeps a VBoxSVC of its own: stop that VM first" >&2
    exit 1
    ;;
server)
    [ ! -e /etc/vbox/vbox.cfg ] || . /etc/vbox/vbox.cfg
    exec "${{INSTALL_DIR:-/usr/lib/virtualbox}}/VBoxSVC"
    ;;
listens)
    # Before that, a command would start another one.
    for turn in $(seq 150); do
        for socket in $(sed -n 's/^.* \\([0-9]*\\) .*\\.vbox-.*ipcd$/\\1/p' /proc/net/unix); do
            ls -l "/proc/$2/fd" | grep -qF "socket:[$socket]" && exit
        done
        sleep 0.2
    done
    exit 1
    ;;
stop)
    # As the power button does; a guest that does not go is switched off.
    for second in $(seq 0 {STOP_S}); do
        ! is_off "$2" || exit 0
        # Again and again: a guest that is still starting does not hear it.
        [ $((second % 20)) != 0 ] || vbox controlvm "$2" acpipowerbutton
        sleep 1
    done
    vbox controlvm "$2" poweroff
    ;;
esac
"""
HELPER = File(PurePosixPath("/usr/local/lib/mlops/virtualbox"), _HELPER, 0o755)

_SERVER = f"""\
[Unit]
Description=VirtualBox's server for the VMs of root
After=local-fs.target

[Service]
{_ENVIRONMENT}
ExecStartPre={HELPER.path} alone
ExecStart={HELPER.path} server
ExecStartPost={HELPER.path} listens $MAINPID
Restart=on-failure
RestartSec=5

[Install]
WantedBy=multi-user.target
"""


def vm_unit(vm: VirtualMachine) -> str:
    """Return the name of a VM's unit."""
    return f"mlops-vm-{vm.name}.service"


def unit_files(vm: VirtualMachine) -> tuple[File, ...]:
    """Return the files by which a VM starts with its host and goes with it."""
    text = f"""\
[Unit]
Description=VM {vm.name} of the site
Wants=network-online.target
Requires={SERVER}
# Those of VirtualBox's own packages that load its kernel module: Oracle's and Debian's.
After=network-online.target {SERVER} vboxdrv.service virtualbox.service

[Service]
{_ENVIRONMENT}
ExecStart=VBoxHeadless --startvm {vm.name} --vrde off
ExecStop={HELPER.path} stop {vm.name}
TimeoutStopSec={STOP_S + 60}
Restart=on-failure
RestartSec=30

[Install]
WantedBy=multi-user.target
"""
    return (File(UNITS / SERVER, _SERVER), HELPER, File(UNITS / vm_unit(vm), text))
