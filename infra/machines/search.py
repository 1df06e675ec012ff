"""Finds a machine that is not where it should be, by its pinned host key: somebody gave it another address."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from infra.machines.host_keys import KINDS, pinned_keys

LARGEST = 22
"""Prefix of the largest network that is searched: 1022 addresses."""
_SCAN_S = 3


def find_moved(folder: Path, names: Iterable[str], network: IPv4Network, port: int = 22) -> dict[str, IPv4Address]:
    """Return where those machines answer now that do.

    Args:
        folder: the site's state folder, with the pinned keys. names: machines that do not answer at their addresses.
        network: to search; nothing is found in one that is larger than ``/22``.
    """
    wanted = {key: name for name in names for key in pinned_keys(folder, name)}
    kinds = [kind for kind in KINDS if any(kind in key.split(" ")[0] for key in wanted)]
    if not kinds or network.prefixlen < LARGEST:
        return {}
    # No others: each is a connection without a login to every machine there, and sshd counts them.
    scan = ["ssh-keyscan", "-T", str(_SCAN_S), "-t", ",".join(kinds), "-p", str(port), "-f", "-"]
    hosts = "".join(f"{host}\n" for host in network.hosts())
    try:
        done = subprocess.run(scan, input=hosts, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return {}
    found: dict[str, IPv4Address] = {}
    for line in done.stdout.splitlines():
        address, _, key = line.partition(" ")
        if key in wanted:
            found[wanted[key]] = IPv4Address(address.strip("[]").partition("]")[0])
    return found
