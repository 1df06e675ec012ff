"""A share mounted on a machine by systemd: a mount unit, its automount unit and the credentials file.

Option names as in mount.cifs(8), units as in systemd.mount(5) and systemd.automount(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from configs.problems import Problem, UserError
from infra.machines.commands import File

UNITS = PurePosixPath("/etc/systemd/system")
SECRETS = PurePosixPath("/etc/mlops")
MOUNT_LIMIT_S = 30


@dataclass(frozen=True)
class Mount:
    """A share and where a machine mounts it.

    Attributes:
        source: ``//host/share``.
        where: the mount point, absolute.
        user: the Samba account. password: never in ``repr``.
        domain: its domain or workgroup, where there is one.
        uid, gid: whom files belong to on this machine, numbers or names; the server decides who may really write.
        encrypt: encrypt everything, whatever the server demands.
        port: TCP port of the server.

    Raises:
        UserError: with everything that cannot be written into a unit or a credentials file.
    """

    source: str
    where: PurePosixPath
    user: str
    password: str = field(repr=False)
    domain: str | None = None
    uid: str = "root"
    gid: str = "root"
    encrypt: bool = False
    port: int = 445

    def __post_init__(self) -> None:
        problems = []
        if not re.fullmatch(r"//[\w.:-]+/[^/\\,%\"'\s]+", self.source):
            problems.append(Problem(f"source {self.source!r}", "is no share", "write //host/share"))
        if not self.where.is_absolute() or str(self.where) == "/" or {"..", "."} & set(self.where.parts):
            problems.append(
                Problem(f"where {str(self.where)!r}", "is no mount point", "an absolute path, as /mnt/share")
            )
        if re.search(r"[\x00-\x1f%\"'\\]", str(self.where)):
            problems.append(
                Problem(f"where {str(self.where)!r}", "holds characters that units escape", "choose another")
            )
        for name, text in (("user", self.user), ("domain", self.domain or ""), ("password", self.password)):
            if set(text) & set("\r\n\0"):
                problems.append(Problem(name, "holds a line break", "a credentials file has one line for each"))
        if not self.user or not self.password:
            problems.append(Problem("credentials", "lack user or password", "give both"))
        for name, text in (("uid", self.uid), ("gid", self.gid)):
            if not re.fullmatch(r"[a-z_][a-z0-9_-]*|\d+", text):
                problems.append(Problem(f"{name} {text!r}", "is no account", "a name or a number"))
        if problems:
            raise UserError(problems)

    @property
    def unit(self) -> str:
        """Return the units' name without its suffix."""
        return escape_path(self.where)

    @property
    def credentials(self) -> PurePosixPath:
        """Return the path of the credentials file: without blanks or commas, which would end a mount option."""
        return SECRETS / f"{re.sub(r'[^A-Za-z0-9._-]', '-', self.unit)}.credentials"


def escape_path(path: PurePosixPath) -> str:
    """Return the name of a path in unit names, as ``systemd-escape --path`` does."""

    def escaped(byte: int, first: bool) -> str:
        character = chr(byte)
        if character == "/":
            return "-"
        plain = byte < 128 and (character.isalnum() or character in ":_.") and not (first and character == ".")
        return character if plain else f"\\x{byte:02x}"

    name = str(path).strip("/").encode()
    return "".join(escaped(byte, index == 0) for index, byte in enumerate(name)) or "-"


def mount_options(mount: Mount) -> tuple[str, ...]:
    """Return the mount options, in order."""
    return (
        f"credentials={mount.credentials}",
        "vers=3.1.1",
        "sign",
        *(("seal",) if mount.encrypt else ()),
        *((f"port={mount.port}",) if mount.port != 445 else ()),
        f"uid={mount.uid}",
        f"gid={mount.gid}",
        "forceuid",
        "forcegid",
        # With a nought in front: the kernel takes other numbers for decimal ones.
        "file_mode=0660",
        "dir_mode=02770",
        "nodev",
        "nosuid",
        "noexec",
        "iocharset=utf8",
        "cache=strict",
        "serverino",
        "soft",
        "echo_interval=15",
        "_netdev",
        "nofail",
    )


def render_mount_unit(mount: Mount) -> str:
    """Return the text of the mount unit.

    ``soft``: with the server away, a read or write fails within a minute, the flow sees it and tries again; ``hard``
    would leave the process in a wait that no cancel ends. What DVC has not finished writing is never taken for an
    object. ``serverino``: the server's inode numbers stay over a remount, or DVC would hash everything again.
    ``cache=strict``: what another machine wrote is seen at once.
    """
    return f"""\
[Unit]
Description=Share {mount.source} at {mount.where}
Wants=network-online.target
After=network-online.target
# Tried again at every access, for as long as the server is away.
StartLimitIntervalSec=0

[Mount]
What={mount.source}
Where={mount.where}
Type=cifs
Options={",".join(mount_options(mount))}
TimeoutSec={MOUNT_LIMIT_S}
# While nothing is mounted, nobody but root can write to the machine's own disk there.
DirectoryMode=0000
"""


def render_automount_unit(mount: Mount) -> str:
    """Return the text of the automount unit, which is the one to enable: it mounts at the first access.

    What is mounted stays, used or not: only over a mount that is still there can containers be given another one.
    """
    return f"""\
[Unit]
Description=Share {mount.source} at {mount.where}, mounted at the first access

[Automount]
Where={mount.where}
DirectoryMode=0000

[Install]
WantedBy=remote-fs.target
"""


def render_credentials(mount: Mount) -> str:
    """Return the text of the credentials file."""
    domain = f"domain={mount.domain}\n" if mount.domain else ""
    return f"username={mount.user}\npassword={mount.password}\n{domain}"


def render_files(mount: Mount) -> tuple[File, ...]:
    """Return what to write on the machine: credentials (0600) before the units that name them."""
    return (
        File(mount.credentials, render_credentials(mount), 0o600, secret=True),
        File(UNITS / f"{mount.unit}.mount", render_mount_unit(mount)),
        File(UNITS / f"{mount.unit}.automount", render_automount_unit(mount)),
    )
