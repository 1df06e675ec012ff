"""A Kerberos realm of MIT's own server on a high loopback port, with one user and the service of one host."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

NAME = "EXAMPLE.TEST"
DOMAIN = "EXAMPLE"
TOOLS = ("krb5kdc", "kdb5_util", "kadmin.local", "kinit")


def missing() -> str:
    """What this machine lacks to try Kerberos; empty if nothing."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    absent += [f"Python's {module}" for module in ("gssapi", "krb5") if find_spec(module) is None]
    return f"Kerberos is not tried, not installed: {', '.join(absent)}" if absent else ""


class Realm:
    """A running KDC, in a ``with``.

    Attributes:
        environment: variables by which clients find the realm and a cache of tickets, which is empty at first.
        globals: lines of smb.conf by which a standalone smbd takes its tickets, the user's as ``unix_account``'s.
    """

    user = "alice"
    host = "localhost"

    def __init__(self, folder: Path, unix_account: str) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.password = secrets.token_urlsafe(12)
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = int(listener.getsockname()[1])
        self.environment = {
            "KRB5_CONFIG": str(folder / "krb5.conf"),
            "KRB5_KDC_PROFILE": str(folder / "kdc.conf"),
            "KRB5CCNAME": f"FILE:{folder / 'tickets'}",
        }
        (folder / "krb5.conf").write_text(
            f"[libdefaults]\ndefault_realm = {NAME}\ndns_lookup_kdc = false\nrdns = false\n"
            "dns_canonicalize_hostname = false\n"
            f"[realms]\n{NAME} = {{\nkdc = 127.0.0.1:{self._port}\n}}\n[domain_realm]\n{self.host} = {NAME}\n"
        )
        # A standalone smbd has no domain controller to ask about a ticket's groups, and refuses tickets with some.
        (folder / "kdc.conf").write_text(
            f"[kdcdefaults]\nkdc_listen = 127.0.0.1:{self._port}\nkdc_tcp_listen = 127.0.0.1:{self._port}\n"
            f"[realms]\n{NAME} = {{\ndatabase_name = {folder}/principal\nkey_stash_file = {folder}/stash\n"
            f"acl_file = {folder}/acl\ndisable_pac = true\n}}\n"
        )
        (folder / "users.map").write_text(f"{unix_account} = {self.user} {DOMAIN}\\{self.user}\n")
        self.globals = {
            "realm": NAME,
            "workgroup": DOMAIN,
            "kerberos method": "dedicated keytab",
            "dedicated keytab file": str(folder / "keytab"),
            "username map": str(folder / "users.map"),
        }

    def __enter__(self) -> Self:
        self._run("kdb5_util", "create", "-s", "-r", NAME, "-P", secrets.token_urlsafe(12))
        self._ask(f"addprinc {self.user}", f"{self.password}\n{self.password}\n")
        self._ask(f"addprinc -randkey cifs/{self.host}")
        self._ask(f"ktadd -k {self._folder / 'keytab'} cifs/{self.host}")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        log = self._folder / "kdc.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["krb5kdc", "-n", "-P", str(self._folder / "pid")],
                env={**os.environ, **self.environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the KDC does not listen: {log.read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def get_ticket(self, lifetime: str = "1h") -> None:
        """Log in as a person does with kinit."""
        self._run("kinit", "-l", lifetime, self.user, told=f"{self.password}\n")

    def forget_tickets(self) -> None:
        (self._folder / "tickets").unlink(missing_ok=True)

    def _ask(self, query: str, told: str = "") -> None:
        self._run("kadmin.local", "-q", query, told=told)

    def _run(self, *command: str, told: str = "") -> None:
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, input=told, capture_output=True, text=True, timeout=30
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}")
