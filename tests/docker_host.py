"""Docker's daemon on a host of its own: a network namespace beside this machine, with images, rules and CAs of its own.

The daemon of the machine that runs the tests, if it has one, is neither asked nor changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from base_images import BASE, make_root

NEEDED = ("dockerd", "containerd", "iptables", "ip")
# Debian's client builds without a plugin; another one, found before it, may not.
CLIENT = "/usr/bin/docker"


def missing() -> str:
    """What this machine lacks to run the daemon; empty if nothing."""
    if os.geteuid() != 0:
        return "docker's daemon needs root"
    absent = [name for name in NEEDED if shutil.which(name) is None] + [CLIENT] * (not Path(CLIENT).is_file())
    return f"not installed: {', '.join(absent)}" if absent else ""


class DockerHost:
    """A running daemon, reached by the variables of ``environment``.

    Attributes:
        near: address of this machine on the link between the two: where servers listen that the daemon must reach.
        environment: makes any docker client of this machine use it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        number = os.getpid() % 64000
        self._name = f"mlops-docker-{number}"
        self._links = f"mlopsd{number}a", f"mlopsd{number}b"
        subnet = f"10.{number // 250 % 250}.{number % 250}"
        self.near, self._far = f"{subnet}.1", f"{subnet}.2"
        self._certificates = folder / "etc"
        self._certificates.mkdir()
        # A socket's path is short by law.
        self._short = Path(tempfile.mkdtemp(prefix="docker-"))
        clients = folder / "bin"
        clients.mkdir()
        (clients / "docker").symlink_to(CLIENT)
        self.environment = {
            "DOCKER_HOST": f"unix://{self._short}/socket",
            "DOCKER_CONFIG": str(folder / "client"),
            "PATH": f"{clients}{os.pathsep}{os.environ['PATH']}",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        here, there = self._links
        ours = ["ip", "-n", self._name]
        try:
            _run("ip", "netns", "add", self._name)
            _run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", self._name)
            _run("ip", "address", "add", f"{self.near}/30", "dev", here)
            _run("ip", "link", "set", here, "up")
            _run(*ours, "address", "add", f"{self._far}/30", "dev", there)
            for link in ("lo", there):
                _run(*ours, "link", "set", link, "up")
            _run(*ours, "route", "add", "default", "via", self.near)
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            # Its containerd dies with it; a daemon that is asked to end takes ten seconds.
            self._process.kill()
            self._process.wait(30)
        subprocess.run(["ip", "link", "delete", self._links[0]], capture_output=True)
        subprocess.run(["ip", "netns", "delete", self._name], capture_output=True)
        shutil.rmtree(self._folder / "data", ignore_errors=True)
        shutil.rmtree(self._short, ignore_errors=True)

    def trust(self, address: str, ca: Path) -> None:
        """Put a registry's CA where the daemon looks for it."""
        place = self._certificates / "certs.d" / address
        place.mkdir(parents=True)
        shutil.copy(ca, place / "ca.crt")

    def run(self, *arguments: str) -> str:
        """Run docker's client and return what it prints."""
        done = subprocess.run(
            ["docker", *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"docker {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def make_base(self, path: str) -> str:
        """Make the base image of :mod:`base_images`, with ``path`` for its commands, and return its name."""
        root, archive = self._folder / "base", self._folder / "base.tar"
        make_root(root)
        _run("tar", "--create", "--file", str(archive), "--directory", str(root), ".")
        self.run("import", "--change", f"ENV PATH={path}", str(archive), BASE)
        shutil.rmtree(root)
        archive.unlink()
        return BASE

    def _start(self) -> None:
        log = self._folder / "daemon.log"
        command = [
            *("dockerd", "--host", self.environment["DOCKER_HOST"], "--pidfile", f"{self._short}/pid"),
            *("--data-root", str(self._folder / "data"), "--exec-root", f"{self._short}/run"),
        ]
        # Not by `ip netns exec`, which hides the cgroups. /etc/docker is ours in this namespace of mounts alone.
        within = f'mkdir -p /etc/docker && mount --bind {self._certificates} /etc/docker && exec "$@"'
        enter = ["nsenter", f"--net=/run/netns/{self._name}", "unshare", "--mount"]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*enter, "sh", "-c", within, "sh", *command],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 60
        while "API listen on" not in (said := log.read_text(errors="replace")):
            assert self._process.poll() is None, said[-3000:]
            assert time.monotonic() < deadline, f"the daemon does not listen\n{said[-3000:]}"
            time.sleep(0.05)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
