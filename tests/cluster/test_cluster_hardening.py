"""Rows of ``docs/hardening.md`` on the real API server, and what the real kubeadm writes: ``pytest -m cluster``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml
from api_server import ADDRESS, Server, open_server, running

from infra.kubeadm.hardening import ANONYMOUS_PATHS, CIPHERS, PLUGINS

pytestmark = pytest.mark.cluster
URL = f"https://{ADDRESS}:6443"
MORE_PHASES = ("control-plane scheduler", "etcd local", "kubeconfig all", "bootstrap-token")
CURL = ("curl", "--silent", "--insecure", "--max-time", "10", "--output", "/dev/null", "--write-out", "%{http_code}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with open_server(tmp_path_factory.mktemp("control-plane")) as made:
        for phase in MORE_PHASES:
            words = (
                "kubeadm",
                "init",
                "phase",
                *phase.split(),
                "--rootfs",
                str(made.root),
                "--config",
                "/kubeadm.yaml",
            )
            quiet = ("--skip-token-print", "--kubeconfig", "/etc/kubernetes/super-admin.conf")
            made.run(*words, *(quiet if phase == "bootstrap-token" else ()))
        yield made


def pod(namespace: str, **spec: object) -> str:
    container = {"name": "one", "image": "registry.k8s.io/pause:3.10"}
    metadata = {"name": "one", "namespace": namespace}
    return yaml.safe_dump(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **spec}}
    )


def arguments(server: Server, name: str) -> dict[str, str]:
    described = yaml.safe_load((server.root / f"etc/kubernetes/manifests/{name}.yaml").read_text())
    words = described["spec"]["containers"][0]["command"][1:]
    return dict(word.removeprefix("--").partition("=")[::2] for word in words)


def test_without_a_login_only_probes_and_discovery_are_answered(server: Server) -> None:
    for path in ANONYMOUS_PATHS:
        assert server.run(*CURL, URL + path) == "200", path
    for path in ("/version", "/api", "/api/v1/namespaces/kube-public/configmaps", "/openapi/v2", "/metrics"):
        assert server.run(*CURL, URL + path) == "401", path


def test_tls_has_strong_ciphers_only(server: Server) -> None:
    def accepted(*options: str) -> bool:
        try:
            return "Cipher is ECDHE" in server.run("openssl", "s_client", "-connect", f"{ADDRESS}:6443", *options)
        except RuntimeError:
            return False

    assert accepted("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")
    for weak in (("-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA"), ("-tls1_2", "-cipher", "AES128-GCM-SHA256")):
        assert not accepted(*weak)
    assert not accepted("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")


def test_pods_with_the_nodes_own_rights_run_only_where_a_namespace_allows_them(server: Server) -> None:
    create = ("create", "--dry-run=server", "-f", "-")
    deadline = time.monotonic() + 30
    while "default" not in server.kubectl("get", "serviceaccounts", "-n", "kube-system", "-o", "name"):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    host = {"hostNetwork": True, "volumes": [{"name": "root", "hostPath": {"path": "/"}}]}
    assert "pod/one created" in server.kubectl(*create, given=pod("default"))
    with pytest.raises(RuntimeError, match='violates PodSecurity "baseline:latest"'):
        server.kubectl(*create, given=pod("default", **host))
    assert "pod/one created" in server.kubectl(*create, given=pod("kube-system", **host))
    server.kubectl("label", "namespace", "default", "pod-security.kubernetes.io/enforce=privileged")
    assert "pod/one created" in server.kubectl(*create, given=pod("default", **host))
    server.kubectl("label", "namespace", "default", "pod-security.kubernetes.io/enforce-")


def test_no_service_takes_an_address_that_it_was_not_given(server: Server) -> None:
    spec = {"ports": [{"port": 80}], "externalIPs": ["192.168.10.1"]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "one"}, "spec": spec}
    with pytest.raises(RuntimeError, match="Use of external IPs is denied"):
        server.kubectl("create", "-f", "-", given=yaml.safe_dump(service))


def test_a_flood_of_events_is_stopped(server: Server, tmp_path: Path) -> None:
    config = f"--kubeconfig={server.root}/etc/kubernetes/super-admin.conf"
    socket = tmp_path / "api"  # of a proxy that logs in, so that no client of its own accord sends slowly or again
    words = (config, f"--server={URL}", "--tls-server-name=cluster", "proxy", f"--unix-socket={socket}")
    with running(tmp_path / "log", "kubectl", *words):
        deadline = time.monotonic() + 20
        while not socket.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://localhost", timeout=30
        ) as client:

            def send(number: int) -> int:
                event = {"metadata": {"name": f"flood-{number}"}, "involvedObject": {"namespace": "default"}}
                return client.post("/api/v1/namespaces/default/events", json=event).status_code

            with ThreadPoolExecutor(8) as pool:
                statuses = list(pool.map(send, range(500)))
            assert set(statuses) == {201, 429}
            assert statuses.count(201) >= 100
            assert client.get("/api/v1/namespaces/default/events").status_code == 200


def test_the_audit_log_is_of_root_alone(server: Server) -> None:
    for path in (server.root / "var/log/kubernetes/audit").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_kubeadm_writes_what_is_secret_for_root_alone(server: Server) -> None:
    folder = server.root / "etc/kubernetes"
    private = [*folder.glob("manifests/*.yaml"), *folder.glob("*.conf"), *folder.glob("pki/**/*.key")]
    assert {path.name for path in private} >= {
        "etcd.yaml",
        "kube-scheduler.yaml",
        "admin.conf",
        "kubelet.conf",
        "ca.key",
    }
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
    assert all(path.stat().st_mode & 0o777 <= 0o644 for path in folder.glob("pki/**/*.crt"))
    assert (server.root / "var/lib/etcd").stat().st_mode & 0o777 == 0o700
    assert {(path.stat().st_uid, path.stat().st_gid) for path in folder.rglob("*")} == {(0, 0)}


def test_kubeadm_itself_closes_what_the_table_leaves_to_it(server: Server) -> None:
    api = arguments(server, "kube-apiserver")
    assert api["authorization-mode"] == "Node,RBAC"
    assert "token-auth-file" not in api
    for name in ("client-ca-file", "etcd-cafile", "etcd-certfile", "etcd-keyfile", "kubelet-client-certificate"):
        assert api[name].startswith("/etc/kubernetes/pki/")
    for name in ("service-account-key-file", "tls-cert-file", "tls-private-key-file", "kubelet-client-key"):
        assert api[name].startswith("/etc/kubernetes/pki/")
    for name in ("kube-controller-manager", "kube-scheduler"):
        assert arguments(server, name)["bind-address"] == "127.0.0.1"
    manager = arguments(server, "kube-controller-manager")
    assert manager["use-service-account-credentials"] == "true"
    assert manager["root-ca-file"] == "/etc/kubernetes/pki/ca.crt"
    assert manager["service-account-private-key-file"] == "/etc/kubernetes/pki/sa.key"
    etcd = arguments(server, "etcd")
    assert (etcd["client-cert-auth"], etcd["peer-client-cert-auth"]) == ("true", "true")
    assert etcd["trusted-ca-file"] != api["client-ca-file"]
    assert not {"auto-tls", "peer-auto-tls"} & set(etcd)


def test_our_arguments_are_in_kubeadms_manifests(server: Server) -> None:
    api = arguments(server, "kube-apiserver")
    assert api["enable-admission-plugins"] == ",".join(PLUGINS)
    assert api["tls-cipher-suites"] == ",".join(CIPHERS)
    assert api["service-account-extend-token-expiration"] == "false"
    assert "disable-admission-plugins" not in api
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        assert arguments(server, name)["profiling"] == "false"
