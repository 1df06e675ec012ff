"""What can go wrong between us and a machine, told to people. OpenSSH's words are those of 8.9 to 10."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.problems import Problem, UserError
from infra.machines.commands import Command

LINES_SHOWN = 20
TRY_AGAIN = (
    "try again in a minute: it may be starting, shutting down, or refuse who came without a login some times before "
    "(on the machine: `journalctl -u ssh`)"
)
"""OpenSSH 9.8 and newer say nothing to those whom they refuse: ``PerSourcePenalties`` in sshd_config(5)."""
_WORDS_SHOWN = 200
# What the C library says, and apt before it begins.
_FULL = ("No space left on device", "don't have enough free space", "Disk quota exceeded")


@dataclass(frozen=True)
class Login:
    """How a machine is logged in to.

    Attributes:
        name: in the site; its host key is pinned by this name, so that another address by DHCP does not lose it.
        user: root, or one whom sudo asks nothing.
        key: the private key.
    """

    name: str
    address: str
    user: str
    port: int
    key: Path


class MachineError(UserError):
    """A machine did not do what it was asked to."""


class ConnectionLost(MachineError, ConnectionError):  # noqa: N818 - says what happened
    """A machine cannot be reached now, or was lost in the middle: worth another try."""


def command_words(argv: Sequence[str]) -> str:
    """Return a command as one short line."""
    words = " ".join(shlex.join(argv).split())
    return words if len(words) <= _WORDS_SHOWN else f"{words[:_WORDS_SHOWN]} ..."


def last_lines(text: str) -> str:
    """Return the last lines of an output, indented, with a line break before them; of none nothing."""
    return "".join(f"\n   | {line}" for line in text.splitlines()[-LINES_SHOWN:])


def connection_error(login: Login, said: str) -> MachineError:
    """Return what ssh meant by its last words when it could not connect.

    A host key that is not as pinned is told by :mod:`infra.machines.host_keys`.

    Args:
        said: ssh's standard error, in English.
    """
    place = f"{login.address}, port {login.port},"
    passing = (
        (
            "Connection refused",
            f"{place} refuses",
            "start the machine's ssh server, or name its port: `ssh: {port: N}`",
        ),
        ("No route to host", f"{place} cannot be reached", "switch it on, and look at its address and cable"),
        ("Network is unreachable", f"no network leads to {login.address}", "look at this machine's own network"),
        ("timed out", f"{place} does not answer", "switch it on, and look at its address and firewall"),
        ("Connection reset", f"{place} ended the connection", TRY_AGAIN),
        ("Connection closed", f"{place} ended the connection", TRY_AGAIN),
    )
    lasting = (
        ("UNPROTECTED PRIVATE KEY", f"others may read {login.key}", f"run `chmod 600 {login.key}`"),
        (
            "Permission denied",
            f"does not let {login.user} in with {login.key}",
            f"on the machine, add {login.key}.pub to ~{login.user}/.ssh/authorized_keys; a key with a passphrase "
            "is added here by `ssh-add`",
        ),
        ("Could not resolve", f"{login.address} is no known name", "write the machine's address"),
    )
    for words, what, remedy in lasting:
        if words in said:
            return MachineError(Problem(login.name, what, remedy))
    for words, what, remedy in passing:
        if words in said:
            return ConnectionLost(Problem(login.name, what, remedy))
    told = said.strip().splitlines()
    remedy = "see whether `ssh` gets there by hand"
    return ConnectionLost(Problem(login.name, f"ssh cannot connect: {told[-1] if told else 'no reason'}", remedy))


def failure(login: Login, what: str, said: str) -> MachineError:
    """Return that something was done there and did not succeed, by what it ``said``; a full disk is told as one."""
    full = next((line.strip() for line in said.splitlines() if any(words in line for words in _FULL)), "")
    if full:
        remedy = "make room (`df -h`, `du -xh / | sort -h | tail`) or give it a larger disk, and run it again"
        return MachineError(Problem(login.name, f"has no room left on its disk: {what}: {full}", remedy))
    return MachineError(Problem(login.name, f"{what}{last_lines(said)}", "mend what it says, and run it again"))


def failed(login: Login, command: Command, status: int, said: str) -> MachineError:
    """Return that a command ended with a status that means it did not succeed."""
    told = command.explain(said)
    if told is not None:
        return MachineError(Problem(login.name, *told))
    return failure(login, f"`{command_words(command.argv)}` ended with {status}", said)


def no_key(login: Login) -> MachineError:
    """Return that our private key for a machine is not there, so that no login is tried."""
    remedy = (
        f"name the file of your private key: `ssh: {{key: PATH}}`; or make one: `ssh-keygen -t ed25519 -f {login.key}`"
    )
    return MachineError(Problem(login.name, f"our key {login.key} is not there", remedy))


def not_root(login: Login, said: str) -> MachineError:
    """Return that a login works and lets nobody become root, by what the machine ``said`` to that."""
    told = said.strip().splitlines()
    reason = told[-1] if told else "no reason given"
    remedy = f"as root on the machine: `echo '{login.user} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/mlops`"
    if login.user == "root":
        remedy = "give root a shell as /bin/sh or /bin/bash"
    return MachineError(Problem(login.name, f"{login.user} cannot run commands as root: {reason}", remedy))
