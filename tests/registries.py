"""A real registry of images for tests: Debian's docker-registry, with TLS and, if wanted, logins."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from certificates import Certificate
from servers import free_port

USER, PASSWORD = "mlops", "correct-horse-battery-staple"


class DockerRegistry:
    """One registry on a free port of ``host``; ``tls`` None: without TLS; its users may do everything."""

    def __init__(
        self,
        folder: Path,
        tls: Certificate | None,
        *,
        login: bool = True,
        host: str = "127.0.0.1",
        storage: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.address = f"{host}:{self.port}"
        self.storage = storage or folder / "storage"
        self.log = folder / "log.txt"
        http: dict[str, object] = {"addr": self.address, "secret": "of-the-tests"}
        if tls is not None:
            http["tls"] = {"certificate": str(tls.certificate), "key": str(tls.key)}
        configuration: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(self.storage)}, "delete": {"enabled": True}},
            "http": http,
        }
        if login:
            users = folder / "htpasswd"
            hashed = subprocess.run(
                ["htpasswd", "-niBC", "4", USER], input=PASSWORD, text=True, capture_output=True, check=True
            )
            users.write_text(hashed.stdout)
            configuration["auth"] = {"htpasswd": {"realm": "tests", "path": str(users)}}
        self._file = folder / "config.yml"
        self._file.write_text(json.dumps(configuration))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> DockerRegistry:
        """Return when it listens."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(self._file)], stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 30
        while "listening on" not in self.log.read_text():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "the registry does not listen"
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> DockerRegistry:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
