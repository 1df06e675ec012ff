"""Bare transfers of a tree to and from a share: ours, rclone, smbclient, fsspec's own smb, and ``cp -r`` of the folder.

Whole commands, started anew each time, from and to empty folders; everything is signed, for smbd demands it. With
``far``, through a proxy that takes 2.5 ms each way. Prints Markdown tables.

rclone 1.60 fails to write where the server puts off an answer, which it does unsigned ([MS-SMB2] 3.3.4.1.1):
``--server "aio write size=0"`` keeps smbd from that, for all clients.

    python -m benchmarks.smb_transfer --pairs 5 --work images labels
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.commands import CommandError, Cost, run
from benchmarks.smb_measure import (
    PACKAGE,
    SETTINGS,
    WORKS,
    Work,
    arguments,
    make_files,
    print_table,
    scratch,
    take_turns,
    total,
)
from smb_servers.proxy import proxy_process
from smb_servers.smbd import Smbd

OURS = "dvc-smb"
DELAY_S = 0.0025
FAR = {"far-images": Work(1_000, 150_000, "jpg"), "far-labels": Work(2_000, 1_000, "txt")}
CLIENT = Path(__file__).with_name("smb_client.py")


class Clients:
    """The commands of all clients for one tree in the share."""

    def __init__(self, server: Smbd, port: int, folder: Path) -> None:
        self.server = server
        self.port = port
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "SMB_PASSWORD": server.password}
        self.authentication = folder / "smbclient.conf"
        self.configuration = folder / "rclone.conf"
        self._write(self.authentication, f"username = {server.user}\npassword = {server.password}\n")
        if shutil.which("rclone"):
            obscured = subprocess.run(
                ["rclone", "obscure", "-"], input=server.password, capture_output=True, text=True, check=True
            ).stdout.strip()
            login = f"host = {server.host}\nport = {port}\nuser = {server.user}\npass = {obscured}\n"
            self._write(self.configuration, f"[share]\ntype = smb\n{login}")

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.touch(mode=0o600)
        path.write_text(text)

    def commands(self, action: str, name: str, local: Path) -> dict[str, list[str]]:
        """Return the command of each client that copies ``name`` in the share to (or from) a local folder."""
        python = [sys.executable, str(CLIENT)]
        ends = [action, str(self.port), self.server.user, f"/sambashare/{name}", str(local)]
        remote, here = f"share:sambashare/{name}", str(local)
        rclone = ["rclone", "--config", str(self.configuration), "--transfers", "16", "copy"]
        verb = "mget" if action == "get" else "mput"
        script = f'recurse ON; prompt OFF; cd "{name}"; lcd "{local}"; {verb} *'
        smbclient = ["smbclient", f"//{self.server.host}/sambashare", "-p", str(self.port)]
        shared = str(self.server.path() / name)
        return {
            OURS: [*python, "ours", *ends],
            "rclone --transfers 16": [*rclone, *((remote, here) if action == "get" else (here, remote))],
            "smbclient": [*smbclient, "-A", str(self.authentication), "-c", script],
            "fsspec smb": [*python, "fsspec", *ends],
            "cp -r": ["cp", "-r", *((f"{shared}/.", here) if action == "get" else (f"{here}/.", shared))],
        }


def measure(clients: Clients, work: Work, title: str, names: list[str], pairs: int) -> None:
    """Measure getting and putting one dataset, and print the two tables."""
    original = clients.folder / "original"
    make_files(original, work)
    expected = total(original)
    shared = clients.server.path()
    shutil.copytree(original, shared / "source")

    def copy(client: str, action: str) -> Cost:
        local, name = (clients.folder / "got", "source") if action == "get" else (original, "target")
        target = local if action == "get" else shared / name
        target.mkdir()
        try:
            cost = run(clients.commands(action, name, local)[client], clients.environment)
            if total(target) != expected:
                raise CommandError(f"{client} copied {total(target)} files and bytes of {expected}")
        finally:
            shutil.rmtree(target)
        return cost

    for action in ("get", "put"):
        turns: dict[str, Callable[[], Cost]] = {client: partial(copy, client, action) for client in names}
        print_table(f"{title}, {work}, {action}", take_turns(turns, pairs, f"{work} {action}"), OURS)
    shutil.rmtree(original)
    shutil.rmtree(shared / "source")


def versions(names: list[str]) -> str:
    """Return the versions of the programs that take part."""
    calls = [("smbd", "--version")] + [("rclone", "version")] * any(name.startswith("rclone") for name in names)
    answers = [subprocess.run(call, capture_output=True, text=True, check=True).stdout for call in calls]
    return ", ".join(f"{call[0]} {answer.split()[1]}" for call, answer in zip(calls, answers, strict=True))


def main() -> None:
    """Run the pairs and print the tables."""
    parser = arguments(__doc__ or "", [*WORKS, *FAR])
    parser.add_argument("--server", nargs="*", default=[], metavar="KEY=VALUE", help="lines for smbd's [global]")
    parser.add_argument("--without", nargs="*", default=[], help="clients to leave out")
    options = parser.parse_args()
    lines = SETTINGS | dict(line.split("=", 1) for line in options.server)
    with scratch(options.folder) as folder, Smbd(folder / "share", globals=lines) as server:
        near = Clients(server, server.port, folder)
        names = [name for name in near.commands("get", "", folder) if name not in options.without]
        for name in names:
            program = name.split()[0]
            if program in ("rclone", "smbclient") and not shutil.which(program):
                sys.exit(
                    f"{program} is missing; on Debian and Ubuntu: apt-get install {program}; or --without '{name}'"
                )
        print(f"{versions(names)}; {os.cpu_count()} cores", flush=True)
        for name, work in WORKS.items():
            if name in options.work:
                measure(near, work.scaled(options.scale), "Loopback", names, options.pairs)
        far = [name for name in names if name not in ("cp -r", "smbclient", "fsspec smb")]
        with proxy_process(server.port, DELAY_S) as port:
            for name, work in FAR.items():
                if name in options.work:
                    (folder / name).mkdir()
                    clients = Clients(server, port, folder / name)
                    measure(clients, work.scaled(options.scale), "5 ms round trip", far, options.pairs)


if __name__ == "__main__":
    main()
