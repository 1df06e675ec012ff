"""A package index for tests, over HTTPS and with a login: wheels made here, and some of those installed here."""

from __future__ import annotations

import base64
import hashlib
import ssl
import threading
import zipfile
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path

from certificates import Certificate

USER, PASSWORD = "packages", "only-for-the-build"


class PackageIndex:
    """Serves the wheels of a folder at ``url``, to those who log in."""

    def __init__(self, folder: Path, tls: Certificate, *, host: str = "127.0.0.1") -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer((host, 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://{host}:{self._server.server_port}/simple"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def pip_conf(self, path: Path) -> Path:
        """Write pip's settings for this index, password included."""
        path.write_text(f"[global]\nindex-url = {self.url.replace('://', f'://{USER}:{PASSWORD}@')}\n")
        path.chmod(0o600)
        return path

    def add(self, name: str, version: str, files: dict[str, str]) -> None:
        """Make a wheel of ``files``."""
        info = f"{name}-{version}.dist-info"
        text = {
            **files,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        self._write(name, version, {path: content.encode() for path, content in text.items()})

    def add_installed(self, name: str) -> None:
        """Make a wheel of a pure Python package that is installed here."""
        found = distribution(name)
        made_at_installation = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
        files = {
            str(file): file.locate().read_bytes()
            for file in found.files or []
            if ".." not in file.parts and file.suffix != ".pyc" and file.name not in made_at_installation
        }
        self._write(name, found.version, files)

    def hashes(self, name: str) -> list[str]:
        """Return the SHA-256 of every wheel of ``name``."""
        return [_sha256(wheel) for wheel in self._wheels(name)]

    def _wheels(self, name: str) -> list[Path]:
        return sorted(self.folder.glob(f"{name.replace('-', '_')}-*.whl"))

    def _write(self, name: str, version: str, files: dict[str, bytes]) -> None:
        name = name.replace("-", "_")
        files = {path.replace(f"{name.replace('_', '-')}-", f"{name}-"): content for path, content in files.items()}
        record = f"{name}-{version}.dist-info/RECORD"
        with zipfile.ZipFile(self.folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            for path, content in files.items():
                wheel.writestr(path, content)
            wheel.writestr(record, "".join(_row(path, content) for path, content in files.items()) + f"{record},,\n")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        index = self
        login = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append(self.path)
                if self.headers.get("Authorization") != login:
                    self._answer(401, b"", ("WWW-Authenticate", 'Basic realm="packages"'))
                elif self.path.startswith("/simple/files/"):
                    self._answer(200, (index.folder / self.path.rpartition("/")[2].replace("%2B", "+")).read_bytes())
                else:
                    wheels = index._wheels(self.path.rstrip("/").rpartition("/")[2])
                    self._answer(200 if wheels else 404, _links(wheels).encode(), ("Content-Type", "text/html"))

            def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
                self.send_response(status)
                for key, value in (*headers, ("Content-Length", str(len(body)))):
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
                """Nothing: what was asked is in ``asked``."""

        return Handler


def _row(path: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(content)}\n"


def _links(wheels: Iterable[Path]) -> str:
    return "".join(
        f'<a href="/simple/files/{wheel.name}#sha256={_sha256(wheel)}">{wheel.name}</a>\n' for wheel in wheels
    )


def _sha256(wheel: Path) -> str:
    return hashlib.sha256(wheel.read_bytes()).hexdigest()
