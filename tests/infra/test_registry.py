"""The registry's client against a real registry: who is let in, and one sentence for each thing that can be wrong."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import stat
import subprocess
import threading
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from certificates import Authority, Certificate
from registries import PASSWORD, USER, DockerRegistry
from servers import free_port

from configs.problems import UserError
from configs.registry import Registry
from configs.secret import PasswordReference
from infra.registry import client as client_module
from infra.registry.client import RegistryClient
from infra.registry.containerd import containerd_files
from infra.registry.login import Login, access, docker_config, find_login
from infra.registry.problems import Reason, RegistryAwayError, RegistryError

GOOD = Login(USER, PASSWORD)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def registry(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path_factory.mktemp("registry"), authority.issue("127.0.0.1")) as running:
        yield running


def use(address: str, ca: Path | None, login: Login | None, *, see: Callable[[RegistryClient], object]) -> object:
    """Ask a registry something as a site would that names this address, CA and login."""
    user = {"user": login.user, "password": PasswordReference(environment="P")} if login else {}
    section = Registry(address=address, repository="mlops/test", ca=ca, **user)
    with RegistryClient(section, login, ca) as client:
        return see(client)


def refused(address: str, ca: Path | None, login: Login | None = GOOD) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        use(address, ca, login, see=RegistryClient.check_push)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].remedy
    assert PASSWORD not in str(caught.value)
    return caught.value


def test_who_logs_in_may_push(registry: DockerRegistry, authority: Authority) -> None:
    def see(client: RegistryClient) -> tuple[list[str], str | None]:
        client.ping()
        client.check_push()
        return client.tags(), client.digest("none")

    assert use(registry.address, authority.pem, GOOD, see=see) == ([], None)
    assert not list(registry.storage.rglob("blobs/**/data")), "trying stores nothing"


def test_a_wrong_password_is_refused(registry: DockerRegistry, authority: Authority) -> None:
    error = refused(registry.address, authority.pem, Login(USER, "wrong"))
    assert error.reason is Reason.LOGIN
    assert f"registry {registry.address}: refuses the login of {USER}" in str(error)


def test_no_login_is_told_to_give_one(registry: DockerRegistry, authority: Authority) -> None:
    error = refused(registry.address, authority.pem, None)
    assert error.reason is Reason.LOGIN
    assert "asks for a login" in str(error)


def test_a_registry_without_logins_lets_anybody_in(authority: Authority, tmp_path: Path) -> None:
    with DockerRegistry(tmp_path, authority.issue("127.0.0.1"), login=False) as open_to_all:
        assert use(open_to_all.address, authority.pem, None, see=RegistryClient.check_push) is None


def test_another_ca_is_not_trusted(registry: DockerRegistry, tmp_path: Path) -> None:
    other = Authority(tmp_path, "Other CA")
    error = refused(registry.address, other.pem)
    assert error.reason is Reason.TLS
    assert f"not from the CA in {other.pem}" in str(error)


def test_a_ca_of_ones_own_has_to_be_named(registry: DockerRegistry) -> None:
    error = refused(registry.address, None)
    assert error.reason is Reason.TLS
    assert "name the CA's PEM file as `registry.ca`" in str(error)


@pytest.mark.parametrize(
    ("issue", "said"),
    [
        (lambda ca: ca.issue("127.0.0.1", days=-1), "has expired"),
        (lambda ca: ca.issue("registry.example.org"), "is for another name than 127.0.0.1"),
        (lambda ca: ca.issue("192.0.2.7"), "is for another name than 127.0.0.1"),
    ],
)
def test_bad_certificates_are_told_apart(
    authority: Authority, tmp_path: Path, issue: Callable[[Authority], Certificate], said: str
) -> None:
    with DockerRegistry(tmp_path, issue(authority)) as running:
        error = refused(running.address, authority.pem)
    assert error.reason is Reason.TLS
    assert said in str(error)


def test_a_registry_without_tls_is_not_spoken_to(authority: Authority, tmp_path: Path) -> None:
    with DockerRegistry(tmp_path, None, login=False) as insecure:
        error = refused(insecure.address, authority.pem)
    assert error.reason is Reason.TLS
    assert "does not speak TLS" in str(error)


def test_nothing_there_is_worth_another_try(authority: Authority) -> None:
    error = refused(f"127.0.0.1:{free_port()}", authority.pem)
    assert isinstance(error, RegistryAwayError)
    assert isinstance(error, ConnectionError), "tasks try those again"
    assert "nothing listens there" in str(error)


def test_silence_has_an_end(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = refused(f"127.0.0.1:{silent.getsockname()[1]}", authority.pem)
    assert isinstance(error, RegistryAwayError)
    assert "does not answer in time" in str(error)


@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk is a small tmpfs here, which only root can mount")
def test_a_full_disk_is_told(authority: Authority, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    try:
        (disk / "rest").write_bytes(bytes(64 * 1024))
        with DockerRegistry(tmp_path / "registry", authority.issue("127.0.0.1"), storage=disk) as full:
            error = refused(full.address, authority.pem)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert error.reason is Reason.FULL
    assert "no space left on its disk" in str(error)


class Scripted(BaseHTTPRequestHandler):
    """Answers that Debian's registry does not give: of a web server, of one with rights, of one with tokens."""

    def do_GET(self) -> None:
        address = f"127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]
        authorization = self.headers.get("Authorization", "")
        if self.path.startswith("/token?"):
            basic = "Basic bWxvcHM6Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ=="
            good = authorization == basic and "scope=repository%3Amlops%2Ftest%3Apull%2Cpush" in self.path
            self._answer(200 if good else 401, {"token": "t0ken"} if good else {})
        elif self.path.startswith("/v2/") and authorization != "Bearer t0ken":
            realm = f'Bearer realm="https://{address}/token",service="registry"'
            self._answer(401, {}, ("WWW-Authenticate", realm))
        elif self.path.startswith("/v2/"):
            self._answer(403, {"errors": [{"code": "DENIED", "message": "requested access is denied"}]})
        else:
            self._answer(200, {})

    def do_POST(self) -> None:
        self.do_GET()

    def _answer(self, status: int, body: dict[str, object], *headers: tuple[str, str]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for key, value in (*headers, ("Content-Length", str(len(content)))):
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
        """Nothing."""


@pytest.fixture
def with_tokens(authority: Authority) -> Iterator[str]:
    tls = authority.issue("127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), Scripted)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_token_is_fetched_and_a_missing_right_is_told(with_tokens: str, authority: Authority) -> None:
    error = refused(with_tokens, authority.pem)
    assert error.reason is Reason.DENIED
    assert f"{USER} may not push to mlops/test: requested access is denied" in str(error)


def test_a_wrong_password_gets_no_token(with_tokens: str, authority: Authority) -> None:
    assert refused(with_tokens, authority.pem, Login(USER, "wrong")).reason is Reason.LOGIN


def test_a_ca_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for path, said in ((tmp_path / "ca.pem", "no certificate in PEM form"), (tmp_path / "none", "No such file")):
        with pytest.raises(UserError, match=said):
            use("127.0.0.1:5000", path, GOOD, see=RegistryClient.ping)


def test_the_login_is_in_files_of_ones_own_only(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    (tmp_path / "password").chmod(0o600)
    section = Registry(address="registry:5000", user=USER, password=PasswordReference(file=Path("password")))
    login = find_login(section, tmp_path, tmp_path)
    assert login == GOOD
    assert PASSWORD not in repr(login)
    with access(section, login, authority.pem) as way:
        assert stat.S_IMODE(way.folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(way.auth_file.stat().st_mode) == 0o600
        auth = "bWxvcHM6Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ=="
        assert json.loads(way.auth_file.read_text()) == {"auths": {"registry:5000": {"auth": auth}}}
        assert way.certificates is not None
        assert (way.certificates / "ca.crt").read_bytes() == authority.pem.read_bytes()
    assert not way.folder.exists()
    (tmp_path / "password").chmod(0o640)
    with pytest.raises(UserError, match="others can read"):
        find_login(section, tmp_path, tmp_path)


def test_without_a_login_a_pull_secret_is_empty() -> None:
    assert json.loads(docker_config(Registry(address="registry:5000"), None)) == {"auths": {}}


def hosts_of(address: str, ca_pem: str | None, login: Login | None = None) -> dict[str, Any]:
    """What a node's containerd reads for a registry."""
    files = containerd_files(Registry(address=address), ca_pem, login=login)
    folder = PurePosixPath("/etc/containerd/certs.d") / address
    assert set(files) == {folder / "hosts.toml", *(() if ca_pem is None else (folder / "ca.crt",))}
    return tomllib.loads(files[folder / "hosts.toml"])


def test_nodes_trust_the_ca_and_nothing_else() -> None:
    url, can = "https://registry:5000", {"capabilities": ["pull", "resolve"]}
    # containerd 1.6 ignores a file without `host`, and says so in its log only.
    assert hosts_of("registry:5000", None) == {"server": url, **can, "host": {url: can}}
    trusting = {**can, "ca": "/etc/containerd/certs.d/registry:5000/ca.crt"}
    assert hosts_of("registry:5000", "PEM") == {"server": url, **trusting, "host": {url: trusting}}


def test_nodes_log_in_where_they_pull_kubernetes_itself_from() -> None:
    read = hosts_of("registry:5000", "PEM", GOOD)
    basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    # Both: after the host, containerd tries the server, and would tell its refusal for the host's answer.
    assert read["header"] == {"Authorization": f"Basic {basic}"}
    assert read["host"]["https://registry:5000"]["header"] == read["header"]
