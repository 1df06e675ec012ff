"""Debian's ``smbd`` on a high loopback port, in folders of its own, gone when the test process is gone.

Needs root: smbd changes its user for every request. Needs no Samba account or setting of the machine, and changes none.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

HOST = "127.0.0.1"
USER = "alice"
START_SECONDS = 10.0

# Unix accounts that Debian always has; SMB's alice is mapped to the first of them, so none has to be made.
_UNIX_ACCOUNTS = ("games", "news", "daemon", "bin")

# SMB1 NEGOTIATE ([MS-CIFS] 2.2.4.52) with the dialects of SMB1 and, by its wildcard, of SMB2 and 3.
_DIALECTS = b"\x02NT LM 0.12\x00\x02SMB 2.002\x00\x02SMB 2.???\x00"
_NEGOTIATE = b"\xffSMB\x72" + bytes(4) + b"\x18\x01\x28" + bytes(20) + struct.pack("<BH", 0, len(_DIALECTS)) + _DIALECTS


@dataclass(frozen=True)
class Share:
    """One section of smb.conf.

    Attributes:
        path: folder to share; None: one made inside the server's folder, or the mounted disk with ``size_limit``.
        read_only: nobody may write.
        encrypt: the server demands encryption of this share.
        size_limit: bytes of a disk (tmpfs) made for this share alone, unmounted at the end.
        files_limit: the most files that this disk takes.
        guest: nobody has to log in (needs ``map to guest = Bad User`` among the globals).
        unix_user: whose rights reads and writes have; root owns all folders made here.
        options: further lines of the section.
    """

    path: Path | None = None
    read_only: bool = False
    encrypt: bool = False
    size_limit: int | None = None
    files_limit: int | None = None
    guest: bool = False
    unix_user: str = "root"
    options: Mapping[str, str] = field(default_factory=dict)


class Smbd:
    """One server. ``start`` and ``stop`` it, or use it in a ``with``; after ``kill`` it starts again on its port.

    Args:
        folder: where the shares without a path of their own lie (``folder/sambashare``).
        shares: by name; None: one, ``sambashare``.
        globals: lines of ``[global]`` that replace those of the hardened default (SMB 3.1.1, signing mandatory).
    """

    host = HOST
    user = USER

    def __init__(
        self,
        folder: Path,
        shares: Mapping[str, Share] | None = None,
        globals: Mapping[str, str] | None = None,  # noqa: A002 - smb.conf's own word
    ) -> None:
        self.folder = Path(folder)
        self.shares: dict[str, Share] = dict(shares) if shares is not None else {"sambashare": Share()}
        self.globals: dict[str, str] = dict(globals or {})
        self.password = secrets.token_urlsafe(12)
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._state: Path | None = None
        self._mounted: list[Path] = []

    def __enter__(self) -> Smbd:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The main process; each connection has one more, in the same process group."""
        if self._process is None:
            raise RuntimeError("smbd is not running")
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        path = self._state and self._state / "log"
        return path.read_text(errors="replace") if path and path.is_file() else ""

    def path(self, share: str = "sambashare") -> Path:
        """Return the folder that a share shows."""
        return self.shares[share].path or self.folder / share

    def url(self, path: str = "", share: str = "sambashare") -> str:
        """Return ``smb://alice@127.0.0.1:port/share/path``; the password is never part of it."""
        return f"smb://{self.user}@{self.host}:{self.port}/{share}" + (f"/{path}" if path else "")

    def start(self) -> Smbd:
        """Start, and return when the server answers a negotiation.

        Raises:
            RuntimeError: smbd is missing, the user is not root, or smbd does not answer; with its log's last lines.
        """
        if self._process is not None:
            raise RuntimeError("smbd runs already")
        if not shutil.which("smbd") or not shutil.which("smbpasswd"):
            raise RuntimeError("smbd is missing; on Debian and Ubuntu: apt-get install samba")
        if os.geteuid() != 0:
            raise RuntimeError("smbd only runs as root; run these tests as root (sudo, or a container)")
        try:
            if self._state is None:
                self._prepare()
            assert self._state is not None
            # smbd in the foreground stops by itself when its stdin, a pipe, ends: no orphans, however we die.
            self._process = subprocess.Popen(
                ["smbd", "--foreground", "--no-process-group", f"--configfile={self._state / 'smb.conf'}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise
        return self

    def kill(self) -> None:
        """Kill all processes of the server at once, as ``kill -9`` does; its state and shares stay for ``start``."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop the server, unmount its disks, remove its state; the shares' folders stay."""
        self._end(signal.SIGTERM)
        while self._mounted:
            subprocess.run(["umount", "--lazy", self._mounted.pop()], check=False, capture_output=True)
        if self._state is not None:
            shutil.rmtree(self._state, ignore_errors=True)
            self._state = None

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # The processes of the connections have no parent that waits for them.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdin:
                process.stdin.close()

    def _prepare(self) -> None:
        """Make state, disks, folders, configuration and account."""
        # Not under the tests' folder: sockets of smbd lie here, and their paths have at most 107 bytes.
        self._state = state = Path(tempfile.mkdtemp(prefix="smbd-"))
        for name, share in self.shares.items():
            path = self.path(name)
            path.mkdir(parents=True, exist_ok=True)
            if share.size_limit is not None:
                self._mount(path, share)
        account = next((name for name in _UNIX_ACCOUNTS if _exists(name)), None)
        if account is None:
            raise RuntimeError(f"none of the accounts {', '.join(_UNIX_ACCOUNTS)} exists; smbd maps alice to one")
        (state / "users.map").write_text(f"{account} = {self.user}\n")
        (state / "smb.conf").write_text(self._configuration(state))
        added = subprocess.run(
            ["smbpasswd", "-c", state / "smb.conf", "-s", "-a", account],
            input=f"{self.password}\n{self.password}\n",
            text=True,
            capture_output=True,
            timeout=30,
            check=False,
        )
        if added.returncode:
            raise RuntimeError(f"smbpasswd could not add the account: {added.stdout}{added.stderr}".strip())

    def _mount(self, path: Path, share: Share) -> None:
        options = f"size={share.size_limit}" + (f",nr_inodes={share.files_limit}" if share.files_limit else "")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"a tiny disk needs the right to mount a tmpfs: {done.stderr.strip()}")
        self._mounted.append(path)

    def _configuration(self, state: Path) -> str:
        lines = {
            "smb ports": str(self.port),
            "interfaces": "127.0.0.1/8",
            "bind interfaces only": "yes",
            "server role": "standalone server",
            "disable netbios": "yes",
            "server min protocol": "SMB3_11",
            "server signing": "mandatory",
            "map to guest": "Never",
            "passdb backend": f"tdbsam:{state / 'passdb.tdb'}",
            "username map": str(state / "users.map"),
            **{
                f"{kind}": str(state)
                for kind in ("private dir", "lock directory", "state directory", "cache directory", "pid directory")
            },
            "ncalrpc dir": str(state / "ncalrpc"),
            "log file": str(state / "log"),
            "load printers": "no",
            "disable spoolss": "yes",
            "printcap name": "/dev/null",
            **self.globals,
        }
        sections = ["[global]", *(f"{key} = {value}" for key, value in lines.items())]
        for name, share in self.shares.items():
            section = {
                "path": str(self.path(name)),
                "read only": "yes" if share.read_only else "no",
                "guest ok": "yes" if share.guest else "no",
                "force user": share.unix_user,
                **({"server smb encrypt": "required"} if share.encrypt else {}),
                **share.options,
            }
            sections += [f"[{name}]", *(f"{key} = {value}" for key, value in section.items())]
        return "\n".join(sections) + "\n"

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            if _answers(self.port):
                return
            time.sleep(0.01)
        why = "does not answer" if self._process.poll() is None else f"ended with {self._process.returncode}"
        raise RuntimeError(f"smbd {why}; its log ends with:\n" + "\n".join(self.log.splitlines()[-20:]))


def _answers(port: int) -> bool:
    """Return whether an SMB server answers a negotiation; a server of 3.1.1 alone may answer by an error."""
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            connection.sendall(struct.pack(">I", len(_NEGOTIATE)) + _NEGOTIATE)
            return connection.recv(8)[5:8] == b"SMB"
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def _exists(account: str) -> bool:
    try:
        pwd.getpwnam(account)
    except KeyError:
        return False
    return True
