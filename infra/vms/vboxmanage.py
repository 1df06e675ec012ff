"""What VirtualBox's command says, and how it is called. Pure.

It is root's VirtualBox: the site's commands are root's, whoever logs in; a VM starts with the host, before anybody has
a session; and a VM's seed holds the private key of its ssh server, which nobody else is to read.
Manual: https://www.virtualbox.org/manual/topics/vboxmanage.html.
"""

from __future__ import annotations

import re

from infra.site.facts import Fact, Reading

# Who it works for is taken from these; without them a command of systemd could find another registry of VMs.
ENVIRONMENT = {"HOME": "/root", "USER": "root", "LOGNAME": "root", "LC_ALL": "C"}
# Its server ends some seconds after the last command, and one that comes just then finds none: so once more.
SHELL = f"""\
export {" ".join(f"{name}={value}" for name, value in ENVIRONMENT.items())}
vbox() {{
    for turn in 1 2 3 4 5; do
        status=0
        said=$(VBoxManage -q "$@" 2>&1) || status=$?
        case "$said" in *"Failed to create the VirtualBox object"*) sleep 1 ;; *) break ;; esac
    done
    [ -z "$said" ] || echo "$said"
    return "$status"
}}
state() {{ vbox showvminfo "$1" --machinereadable | sed -n 's/^VMState="\\(.*\\)"$/\\1/p'; }}
is_off() {{
    case "$(state "$1")" in
    "" | poweroff | saved | aborted | aborted-saved | teleported) ;;
    *) false ;;
    esac
}}
"""
"""Begins every script: ``vbox`` calls VBoxManage, ``is_off`` also holds for a VM that is not there."""
VBOXMANAGE = ("sh", "-c", f'{SHELL}vbox "$@"', "VBoxManage")
OLDEST = 7
"""Before it, options of ``modifyvm`` had other names."""
NOT_THERE = "VBOX_E_OBJECT_NOT_FOUND"
OFF = frozenset({"poweroff", "saved", "aborted", "aborted-saved", "teleported"})
"""States in which no process runs the VM; enumeration ``MachineState`` of VirtualBox's SDK has the others."""
VERSION = Fact((*VBOXMANAGE, "--version"))
BRIDGES = Fact((*VBOXMANAGE, "list", "bridgedifs"))

_LINE = re.compile(r'^(?:"([^"]+)"|([A-Za-z0-9_-]+))=(?:"(.*)"|(.*))$')


def info_fact(name: str) -> Fact:
    """Ask for a VM."""
    return Fact((*VBOXMANAGE, "showvminfo", name, "--machinereadable"))


def read_info(text: str) -> dict[str, str]:
    """Return the settings of a VM; lines that are none, such as warnings, are left out."""
    found = filter(None, map(_LINE.match, text.splitlines()))
    return {line[1] or line[2]: line[4] if line[3] is None else line[3] for line in found}


def read_bridges(reading: Reading) -> tuple[str, ...]:
    """Return the host's interfaces that a VM's card can be bridged to."""
    return tuple(re.findall(r"^Name: +(\S.*?) *$", reading.text, re.MULTILINE)) if reading.ok else ()


def read_version(reading: Reading) -> str:
    """Return VirtualBox's version, as ``7.0.20r163906``; empty: it does not say."""
    # A warning about its kernel module comes before it.
    found = re.search(r"^(\d+\.\d+\.\d+\S*)$", reading.text, re.MULTILINE)
    return found[1] if found else ""


def read_error(text: str) -> str:
    """Return what VBoxManage complains of, in one line."""
    lines = re.findall(r"^VBoxManage: error: (?!Details|Context)(.*)$", text, re.MULTILINE)
    return " ".join(lines) or " ".join(text.split())[-300:]
