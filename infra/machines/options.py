"""How OpenSSH's client is called: with nobody's configuration but ours. Source: ssh_config(5)."""

from __future__ import annotations

from pathlib import Path

from infra.machines.host_keys import known_hosts
from infra.machines.trouble import Login

CONNECT_S = 10
ALIVE_S, ALIVE_COUNT = 5, 5
"""A machine that says nothing for their product is lost."""
_STAYS_S = 60


def ssh_words(login: Login, folder: Path, sockets: Path) -> tuple[str, ...]:
    """Return ``ssh`` with all its options, to be followed by the address.

    Args:
        folder: the site's state folder, with the pinned host keys. sockets: where the connection's socket lies.
    """
    options = {
        "BatchMode": "yes",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": f'"{known_hosts(folder)}"',
        "GlobalKnownHostsFile": "/dev/null",
        "UpdateHostKeys": "no",
        "HostKeyAlias": login.name,
        "CheckHostIP": "no",
        "ConnectTimeout": str(CONNECT_S),
        "ServerAliveInterval": str(ALIVE_S),
        "ServerAliveCountMax": str(ALIVE_COUNT),
        "ControlMaster": "auto",
        "ControlPath": f"{sockets}/%C",
        "ControlPersist": str(_STAYS_S),
        "ForwardAgent": "no",
        "LogLevel": "ERROR",
    }
    given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    where = ("-p", str(login.port), "-l", login.user, "-i", str(login.key))
    return ("ssh", "-F", "/dev/null", "-T", *given, *where)
