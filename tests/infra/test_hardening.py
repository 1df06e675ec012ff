"""Rows of ``docs/hardening.md`` on what we render; and that every test it names is there."""

from __future__ import annotations

import ast
import re
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.kubeadm.configuration import Cluster, init_configuration
from infra.kubeadm.flannel import flannel_manifest
from infra.kubeadm.hardening import ADMISSION, AUTHENTICATION, api_server_arguments, api_server_files
from infra.site.steps.control_plane import control_plane_step

CHECKOUT = Path(__file__).parents[2]
TABLE = CHECKOUT / "docs/hardening.md"
PODS = IPv4Network("10.244.0.0/16")


def rendered(version: str = "1.33.5") -> dict[str, dict[str, Any]]:
    cluster = Cluster(version, "cluster", PODS, IPv4Network("10.96.0.0/12"))
    documents = yaml.safe_load_all(init_configuration(cluster, "master", "192.168.10.50"))
    return {document["kind"]: document for document in documents}


def arguments(component: str, version: str = "1.33.5") -> dict[str, str]:
    return {item["name"]: item["value"] for item in rendered(version)["ClusterConfiguration"][component]["extraArgs"]}


@pytest.mark.parametrize("component", ["apiServer", "controllerManager", "scheduler"])
def test_nobody_profiles_the_control_plane(component: str) -> None:
    assert arguments(component)["profiling"] == "false"


def test_the_audit_log_is_kept_for_a_month_and_never_fills_the_disk() -> None:
    given = arguments("apiServer")
    assert given["audit-log-path"].startswith("/var/log/")
    assert int(given["audit-log-maxage"]) >= 30
    assert int(given["audit-log-maxbackup"]) >= 10
    assert int(given["audit-log-maxsize"]) >= 100  # MB
    assert int(given["audit-log-maxbackup"]) * int(given["audit-log-maxsize"]) <= 2000


def test_ended_pods_are_removed() -> None:
    assert arguments("controllerManager")["terminated-pod-gc-threshold"] == "500"


def test_admission_plugins_are_named_with_kubeadms_own() -> None:
    given = arguments("apiServer")
    assert given["enable-admission-plugins"].split(",") == [
        "NodeRestriction",
        "DenyServiceExternalIPs",
        "EventRateLimit",
    ]
    plugins = yaml.safe_load(api_server_files("1.33.5")[ADMISSION])["plugins"]
    # One that has a configuration and is not enabled would be silently without effect.
    on = {*given["enable-admission-plugins"].split(","), "PodSecurity"}
    assert {plugin["name"] for plugin in plugins} <= on


def test_pods_are_held_to_the_baseline_where_a_namespace_says_nothing() -> None:
    plugins = {item["name"]: item for item in yaml.safe_load(api_server_files("1.33.5")[ADMISSION])["plugins"]}
    configuration = plugins["PodSecurity"]["configuration"]
    assert configuration["defaults"]["enforce"] == "baseline"
    assert configuration["exemptions"] == {"namespaces": ["kube-system"]}


def test_tokens_of_pods_end_when_they_say() -> None:
    assert arguments("apiServer")["service-account-extend-token-expiration"] == "false"


def test_ciphers_are_strong_and_the_same_for_api_server_and_kubelets() -> None:
    ciphers = arguments("apiServer")["tls-cipher-suites"].split(",")
    assert ciphers == rendered()["KubeletConfiguration"]["tlsCipherSuites"]
    assert ciphers
    assert all(re.fullmatch(r"TLS_ECDHE_(RSA|ECDSA)_WITH_AES_(128|256)_GCM_SHA\d+", name) for name in ciphers)
    assert "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" in ciphers  # HTTP/2 demands it (RFC 7540, 9.2.2)
    assert (
        arguments("apiServer")["tls-min-version"]
        == rendered()["KubeletConfiguration"]["tlsMinVersion"]
        == "VersionTLS12"
    )


@pytest.mark.parametrize(("version", "there"), [("1.31.9", False), ("1.32.0", True), ("1.34.1", True)])
def test_anonymous_requests_reach_named_paths_only(version: str, *, there: bool) -> None:
    assert (AUTHENTICATION in api_server_files(version)) == there
    assert ("authentication-config" in api_server_arguments(version)) == there
    if there:
        anonymous = yaml.safe_load(api_server_files(version)[AUTHENTICATION])["anonymous"]
        assert "/api/v1/namespaces/kube-public/configmaps/cluster-info" in str(anonymous["conditions"])
        assert "anonymous-auth" not in arguments("apiServer", version)  # the two exclude each other


def test_every_file_of_the_api_server_is_written_and_mounted() -> None:
    step = control_plane_step(
        "master", "192.168.10.50", Cluster("1.33.5", "cluster", PODS, IPv4Network("10.96.0.0/12")), "A" * 43 + "=", ()
    )
    asked = " ".join(word for fact in step.facts for word in fact.argv)
    mounts = [item["hostPath"] for item in rendered()["ClusterConfiguration"]["apiServer"]["extraVolumes"]]
    for path, text in api_server_files("1.33.5").items():
        assert str(path) in mounts
        assert str(path) in asked
        assert yaml.safe_load(text)["apiVersion"].startswith("apiserver.config.k8s.io/")


def test_kubelets_are_strict() -> None:
    kubelet = rendered()["KubeletConfiguration"]
    assert kubelet["protectKernelDefaults"] is True
    assert kubelet["seccompDefault"] is True
    assert kubelet["rotateCertificates"] is True
    assert kubelet["podPidsLimit"] > 0
    # Their defaults are right, and kubeadm sets the rest.
    for name in ("readOnlyPort", "streamingConnectionIdleTimeout", "eventRecordQPS", "makeIPTablesUtilChains"):
        assert name not in kubelet
    for name in ("authentication", "authorization", "featureGates"):
        assert name not in kubelet


def test_the_pod_networks_files_on_nodes_are_of_root_alone() -> None:
    daemons = next(item for item in yaml.safe_load_all(flannel_manifest(PODS)) if item["kind"] == "DaemonSet")
    volumes = {item["name"]: item for item in daemons["spec"]["template"]["spec"]["volumes"]}
    # `cp` gives a new file the mode of its source.
    assert volumes["configuration"]["configMap"]["defaultMode"] == 0o600


def rows() -> list[list[str]]:
    lines = [line for line in TABLE.read_text().splitlines() if re.match(r"\| \d", line)]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_every_test_that_the_table_names_is_there() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TABLE.read_text()))
    assert len(named) > 20
    for file, name in sorted(named):
        tree = ast.parse((CHECKOUT / file).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"


def test_every_item_has_a_test_or_the_reason_why_it_is_open() -> None:
    found = rows()
    assert len(found) > 20
    items = [item for row in found for item in re.findall(r"\d\.\d\.\d+", row[0])]
    assert len(set(items)) == len(items)
    for row in found:
        assert len(row) == 4, row
        assert "::" in row[3] or row[2].startswith("open: "), row
