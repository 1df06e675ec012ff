"""Manifests of the cluster's add-ons: the published schemas, whole objects, and what must never be in them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from infra.addons.dashboard import ADMIN, NAMESPACE, VIEWER, dashboard_manifests
from infra.addons.device_plugin import device_plugin_manifests
from infra.addons.images import DEVICE_PLUGIN, HEADLAMP, METRICS_SERVER, from_mirror
from infra.addons.metrics_server import HOST, metrics_server_manifests
from infra.site.authority import Authority, ServerCertificate

CERTIFICATE = ServerCertificate("certificate", "private key")
DASHBOARD, METRICS = dashboard_manifests(CERTIFICATE), metrics_server_manifests(CERTIFICATE, "ca")
PLUGIN = device_plugin_manifests()
ALL = [*DASHBOARD, *METRICS, *PLUGIN]


def one(manifests: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = (item for item in manifests if (item["kind"], item["metadata"]["name"]) == (kind, name))
    return found


@pytest.mark.parametrize("version", ["1.31", "1.33", "1.36"])
def test_they_fit_the_published_schemas(version: str) -> None:
    for item in ALL:
        kubernetes_validate.validate(item, version, strict=True)


def test_every_image_is_of_one_version_and_may_come_from_a_mirror() -> None:
    specs = [item["spec"]["template"]["spec"] for item in ALL if item["kind"] in ("Deployment", "DaemonSet")]
    images = [container["image"] for spec in specs for container in spec["containers"]]
    assert images == [HEADLAMP, METRICS_SERVER, DEVICE_PLUGIN]
    for image in images:
        assert image.rpartition(":")[2] not in ("", "latest")
    assert from_mirror(HEADLAMP, "registry:5000/kubernetes") == "registry:5000/kubernetes/headlamp:v0.44.0"
    assert from_mirror(HEADLAMP, None) == HEADLAMP


def test_metrics_server_takes_no_answer_unseen() -> None:
    spec = one(METRICS, "Deployment", "metrics-server")["spec"]["template"]["spec"]
    arguments = spec["containers"][0]["args"]
    assert not any("insecure" in item for item in arguments)
    assert any(item.startswith("--kubelet-certificate-authority=") for item in arguments)
    assert one(METRICS, "APIService", "v1beta1.metrics.k8s.io")["spec"] == {
        "group": "metrics.k8s.io",
        "version": "v1beta1",
        "service": {"name": "metrics-server", "namespace": "kube-system", "port": 443},
        "caBundle": base64.b64encode(b"ca").decode(),
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
    }
    assert HOST == "metrics-server.kube-system.svc"


def test_whoever_looks_at_the_dashboard_changes_nothing_and_sees_no_secret() -> None:
    bound = {
        item["roleRef"]["name"]: item["subjects"][0]["name"]
        for item in DASHBOARD
        if item["kind"] == "ClusterRoleBinding"
    }
    assert bound == {"view": VIEWER, "mlops-dashboard-viewer": VIEWER, "cluster-admin": ADMIN}
    rules = one(DASHBOARD, "ClusterRole", "mlops-dashboard-viewer")["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert not any("secrets" in rule["resources"] or "*" in rule["resources"] for rule in rules)


def test_no_token_of_the_dashboard_lies_anywhere() -> None:
    accounts = [item for item in DASHBOARD if item["kind"] == "ServiceAccount"]
    assert [item["automountServiceAccountToken"] for item in accounts] == [False, False, False]
    assert [item["type"] for item in DASHBOARD if item["kind"] == "Secret"] == ["kubernetes.io/tls"]


def test_the_dashboard_is_reached_by_no_port_of_a_node() -> None:
    assert not any(item["kind"] in ("Service", "Ingress") for item in DASHBOARD)
    spec = one(DASHBOARD, "Deployment", "dashboard")["spec"]["template"]["spec"]
    assert "hostNetwork" not in spec
    assert not any("hostPort" in port for port in spec["containers"][0]["ports"])


def test_the_dashboard_fits_the_strictest_pod_security() -> None:
    assert (
        one(DASHBOARD, "Namespace", NAMESPACE)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )
    spec = one(DASHBOARD, "Deployment", "dashboard")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_device_plugin_runs_where_a_gpu_is_by_its_runtime() -> None:
    assert one(PLUGIN, "RuntimeClass", "nvidia")["handler"] == "nvidia"
    spec = one(PLUGIN, "DaemonSet", "nvidia-device-plugin")["spec"]["template"]["spec"]
    assert (spec["nodeSelector"], spec["runtimeClassName"]) == ({"nvidia.com/gpu.present": "true"}, "nvidia")


def test_certificates_are_of_the_sites_ca(tmp_path: Path) -> None:
    certificate = Authority(tmp_path).server("metrics-server", (HOST,))
    secret = one(metrics_server_manifests(certificate, "ca"), "Secret", "metrics-server-tls")
    assert base64.b64decode(secret["data"]["tls.crt"]).decode() == certificate.certificate


def test_a_renewed_certificate_starts_the_dashboard_anew_and_its_key_shows_nowhere_else() -> None:
    def template(certificate: ServerCertificate) -> dict[str, Any]:
        found: dict[str, Any] = one(dashboard_manifests(certificate), "Deployment", "dashboard")["spec"]["template"]
        return found

    assert template(CERTIFICATE) == template(CERTIFICATE)
    assert template(CERTIFICATE) != template(ServerCertificate("renewed", "private key"))
    for item in ALL:
        encoded = base64.b64encode(b"private key").decode()
        assert (encoded in str(item)) == (item["kind"] == "Secret")
