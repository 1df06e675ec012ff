"""A VM's seed: cloud-init's NoCloud data, on a small disk beside its own.

It gives identity alone: name, address, our account and key, the ssh server's key. Everything else is a step over ssh.
Formats: https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html and
https://docs.cloud-init.io/en/latest/reference/network-config-format-v2.html.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from infra.machines.commands import Command, File
from infra.site.inventory import VM_USER
from infra.site.step import Action
from infra.vms.machine import VirtualMachine

PACKAGES = ("genisoimage",)

# The image appears whole and readable by its own readers alone, or not at all: the ssh server's key is in it.
_MAKE = """\
set -e
umask 077
folder=$(mktemp -d -p /run)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/user-data"
printf %s "$3" >"$folder/meta-data"
printf %s "$4" >"$folder/network-config"
install -d -m 0711 "$(dirname "$1")"
rm -f "$1.new"
genisoimage -quiet -output "$1.new" -volid cidata -joliet -rational-rock "$folder"
chgrp "$2" "$1.new"
chmod 0640 "$1.new"
sync "$1.new"
mv -fT "$1.new" "$1"
"""


def meta_data(vm: VirtualMachine) -> str:
    """Return the instance's id: cloud-init gives a machine its identity once for each id.

    It is made of all that the identity consists of, so a VM of another address or key takes it on at its next start.
    """
    identity = repr((vm.mac, vm.address, vm.prefix, vm.gateway, vm.nameservers, vm.user_key, vm.host_key_public))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return _yaml({"instance-id": f"{vm.name}-{digest}", "local-hostname": vm.name})


def user_data(vm: VirtualMachine) -> str:
    """Return account, key and host key. It is secret."""
    user = {
        "name": VM_USER,
        "gecos": "site administration",
        "shell": "/bin/bash",
        "lock_passwd": True,
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "ssh_authorized_keys": [vm.user_key],
    }
    values = {
        # Only ours: not the account that the image would make.
        "users": [user],
        "disable_root": True,
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": vm.host_key, "ed25519_public": vm.host_key_public},
        "preserve_hostname": False,
        # The site's names are a block in /etc/hosts: `true` would write the file anew at each boot.
        "manage_etc_hosts": "localhost",
        # As the image has it. A text: older schemas know no boolean here.
        "locale": "false",
        "package_update": False,
        "package_upgrade": False,
    }
    return f"#cloud-config\n{_yaml(values)}"


def network_config(vm: VirtualMachine) -> str:
    """Return the card's address; it is found by its MAC, whatever the kernel calls it."""
    card = {
        "match": {"macaddress": vm.mac},
        "dhcp4": False,
        "addresses": [f"{vm.address}/{vm.prefix}"],
        "routes": [{"to": "0.0.0.0/0", "via": vm.gateway}],
        "nameservers": {"addresses": list(vm.nameservers)},
    }
    return _yaml({"version": 2, "ethernets": {"site": card}})


def seed_marker(vm: VirtualMachine) -> File:
    """Return the file that says which seed lies beside it: its meta-data, which are no secret."""
    return File(vm.folder / "meta-data", meta_data(vm))


def seed_actions(vm: VirtualMachine, readers: str) -> tuple[Action, ...]:
    """Return what makes the seed.

    Args:
        readers: group of the host that may read it.
    """
    argv = ("sh", "-c", _MAKE, "sh", str(vm.seed), readers, meta_data(vm), network_config(vm))
    return (Command(argv, stdin=user_data(vm)), seed_marker(vm))


def _yaml(values: dict[str, Any]) -> str:
    """Return YAML: of its many forms the one that is JSON, in which nothing has to be quoted specially."""
    return json.dumps(values, indent=1) + "\n"
