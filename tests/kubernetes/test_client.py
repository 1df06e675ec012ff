"""What a person is told when the way to the cluster is wrong, and which errors of the API server can pass."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx2
import pytest
import yaml
from certificates import Authority
from servers import free_port

from configs.cluster import Cluster
from configs.problems import UserError
from infra.kubernetes.client import connect, is_away, site_kubeconfig, status_code


class _Api(BaseHTTPRequestHandler):
    status = 201

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = {"apiVersion": "v1", "kind": "Status", "message": "no", "code": self.status}
        if self.status == 201:
            body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {}}
        text = json.dumps(body).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), _Api)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def _kubeconfig(folder: Path, server: str, **cluster: str) -> Path:
    path = folder / "kubeconfig"
    values = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "admin@test",
        "contexts": [{"name": "admin@test", "context": {"cluster": "test", "user": "admin"}}],
        "clusters": [{"name": "test", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "admin", "user": {"token": "s3cret-token"}}],
    }
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def _told(cluster: Cluster) -> str:
    with pytest.raises(UserError) as raised:
        connect(cluster)
    assert len(raised.value.problems) == 1
    assert "s3cret" not in str(raised.value)
    return str(raised.value)


def test_a_cluster_that_answers(tmp_path: Path, api: HTTPServer) -> None:
    path = _kubeconfig(tmp_path, f"http://127.0.0.1:{api.server_port}")
    assert connect(Cluster(kubeconfig=path, namespace="team")).namespace == "team"


def test_kubeconfig_of_the_environment(tmp_path: Path, api: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _kubeconfig(tmp_path, f"http://127.0.0.1:{api.server_port}")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{path}")
    connect(Cluster())


def test_the_cluster_that_the_site_has_made_comes_before_the_users_own(
    tmp_path: Path, api: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    own = site_kubeconfig(tmp_path)
    own.parent.mkdir()
    _kubeconfig(tmp_path, f"http://127.0.0.1:{api.server_port}").rename(own)
    connect(Cluster())
    own.unlink()
    assert str(tmp_path / "home/.kube/config") in _told(Cluster())


def test_no_kubeconfig(tmp_path: Path) -> None:
    assert "there is no such kubeconfig" in _told(Cluster(kubeconfig=tmp_path / "missing"))


@pytest.mark.parametrize("text", ["{", "a: [1", "clusters: 3", "hello"])
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text, encoding="utf-8")
    assert "it is no kubeconfig" in _told(Cluster(kubeconfig=path))


def test_an_unknown_context(tmp_path: Path) -> None:
    path = _kubeconfig(tmp_path, "https://127.0.0.1:1")
    told = _told(Cluster(kubeconfig=path, context="other"))
    assert "has no context other" in told
    assert "it has: admin@test" in told


def test_nobody_listens(tmp_path: Path) -> None:
    server = f"https://127.0.0.1:{free_port()}"
    assert f"{server} does not answer" in _told(Cluster(kubeconfig=_kubeconfig(tmp_path, server)))


@pytest.mark.parametrize(
    ("status", "told"),
    [(401, "does not accept its login"), (403, "lets this login do nothing"), (503, "answered 503")],
)
def test_a_login_that_is_refused(
    tmp_path: Path, api: HTTPServer, monkeypatch: pytest.MonkeyPatch, status: int, told: str
) -> None:
    monkeypatch.setattr(_Api, "status", status)
    assert told in _told(Cluster(kubeconfig=_kubeconfig(tmp_path, f"http://127.0.0.1:{api.server_port}")))


def test_a_certificate_of_another_authority(tmp_path: Path, api: HTTPServer) -> None:
    issued = Authority(tmp_path / "one").issue("127.0.0.1")
    other = Authority(tmp_path / "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    api.socket = context.wrap_socket(api.socket, server_side=True)
    path = _kubeconfig(tmp_path, f"https://127.0.0.1:{api.server_port}", **{"certificate-authority": str(other.pem)})
    assert "could not prove who it is" in _told(Cluster(kubeconfig=path))


@pytest.mark.parametrize(
    ("status", "away"), [(429, True), (500, True), (503, True), (504, True), (403, False), (404, False), (409, False)]
)
def test_which_answers_can_pass(status: int, away: bool) -> None:
    response = httpx2.Response(status, request=httpx2.Request("GET", "https://127.0.0.1"))
    error = httpx2.HTTPStatusError("told", request=response.request, response=response)
    assert is_away(error) is away
    assert status_code(error) == status


def test_which_failures_can_pass() -> None:
    assert is_away(httpx2.ConnectError("refused"))
    assert is_away(httpx2.ReadTimeout("late"))
    assert is_away(ConnectionResetError())
    assert not is_away(httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"))
    assert not is_away(ValueError("no"))
    assert status_code(ValueError("no")) is None
