"""A Samba server set up from what ``infra.samba.server`` renders, on this machine, without touching its own files.

Commands and smbd run in a mount namespace where ``/etc``, ``/srv`` and Samba's folders are a test's own.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

from servers import free_port

from infra.samba.server import Server, render_files, setup_commands

OWN = ("etc", "srv", "var/lib/samba", "var/log/samba", "var/cache/samba", "run/samba")
_ENTER = 'cd "$1"; shift; for own in {own}; do mkdir -p /$own; mount --bind $own /$own; done; cd /; exec "$@"'


class DeployedSamba:
    """A server for the users of ``server``, each with the password ``NAME's secret``."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.server = server
        self.passwords = {user: f"{user}'s secret" for user in server.users}
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        for own in OWN:
            (folder / own).mkdir(parents=True)
        (folder / "var/lib/samba/private").mkdir(mode=0o700)
        shutil.copytree("/etc", folder / "etc", symlinks=True, dirs_exist_ok=True)

    @property
    def share(self) -> Path:
        """The share's folder, as it is on this machine's disk."""
        return self.folder / self.server.path.relative_to("/")

    @property
    def log(self) -> str:
        path = self.folder / "var/log/samba/log.smbd"
        return path.read_text(errors="replace") if path.exists() else ""

    def run(self, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command where the server's files are."""
        return subprocess.run(self._inside(*argv), input=stdin, text=True, capture_output=True, timeout=60, check=False)

    def set_up(self) -> None:
        """Run the rendered commands and write the rendered files; may be called again."""
        for command in setup_commands(self.server, self.passwords):
            done = self.run(*command.argv, stdin=command.stdin)
            assert done.returncode in command.accepted, f"{command}: {done.stdout}{done.stderr}"
        for file in render_files(self.server):
            path = self.folder / file.path.relative_to("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text)
            path.chmod(file.mode)

    def start(self) -> None:
        """Start smbd by the rendered configuration, on a port of its own."""
        arguments = ("smbd", "--foreground", "--no-process-group", f"--port={self.port}")
        self._process = subprocess.Popen(
            self._inside(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"smbd does not answer:\n{self.log[-3000:]}")

    def stop(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()  # in the foreground smbd ends with its standard input
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def client(self, command: str, *options: str, user: str = "alice", password: str | None = None) -> str:
        """What ``smbclient`` says to a command in the share, whether it succeeds or not."""
        secret = self.passwords.get(user, "") if password is None else password
        address = f"//127.0.0.1/{self.server.share}"
        argv = ["smbclient", address, f"--port={self.port}", f"--user={user}", *options, f"--command={command}"]
        environment = {"PASSWD": secret, "PATH": "/usr/bin:/bin"}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, check=False)
        return f"{done.stdout}{done.stderr}"

    def _inside(self, *argv: str) -> list[str]:
        enter = _ENTER.format(own=" ".join(OWN))
        return ["unshare", "--mount", "--propagation=private", "sh", "-ec", enter, "sh", str(self.folder), *argv]
