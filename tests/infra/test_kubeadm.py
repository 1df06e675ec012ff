"""What kubeadm is told: whole documents, and what must never be in them."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from ipaddress import IPv4Network

import pytest
import yaml

from infra.kubeadm.configuration import Cluster, init_configuration, join_configuration
from infra.kubeadm.flannel import flannel_manifest
from infra.kubeadm.policy import audit_policy, encryption_configuration

CLUSTER = Cluster("1.33.5", "cluster", IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/12"))
HASH = "sha256:" + "0" * 64


def test_a_control_plane_is_named_not_numbered() -> None:
    init, cluster, kubelet = yaml.safe_load_all(init_configuration(CLUSTER, "master", "192.168.10.50"))
    assert cluster["controlPlaneEndpoint"] == "cluster:6443"
    assert cluster["kubernetesVersion"] == "v1.33.5"
    assert cluster["networking"] == {"podSubnet": "10.244.0.0/16", "serviceSubnet": "10.96.0.0/12"}
    assert cluster["apiServer"]["certSANs"] == ["cluster", "master", "192.168.10.50"]
    assert init["localAPIEndpoint"] == {"advertiseAddress": "192.168.10.50", "bindPort": 6443}
    assert init["nodeRegistration"] == {
        "name": "master",
        "criSocket": "unix:///run/containerd/containerd.sock",
        "kubeletExtraArgs": [{"name": "node-ip", "value": "192.168.10.50"}],
    }
    assert kubelet["cgroupDriver"] == "systemd"


def test_images_come_from_the_sites_mirror() -> None:
    mirrored = replace(CLUSTER, images="registry:5000/kubernetes")
    documents = list(yaml.safe_load_all(init_configuration(mirrored, "master", "192.168.10.50")))
    assert documents[1]["imageRepository"] == "registry:5000/kubernetes"
    assert "imageRepository" not in init_configuration(CLUSTER, "master", "192.168.10.50")
    pods = IPv4Network("10.244.0.0/16")
    named = re.findall(r"image: (\S+)", flannel_manifest(pods, "registry:5000/kubernetes"))
    assert [name.rpartition("/")[0] for name in named] == ["registry:5000/kubernetes"] * 3
    theirs = re.findall(r"image: (\S+)", flannel_manifest(pods))
    assert [name.rpartition("/")[2] for name in theirs] == [name.rpartition("/")[2] for name in named]


def test_a_site_may_say_more_to_kubelet_and_kube_proxy() -> None:
    more = {"maxPods": 50, "protectKernelDefaults": False}
    cluster = replace(CLUSTER, kubelet=more, kube_proxy={"mode": "nftables"}, ignored=("SystemVerification",))
    init, _, kubelet, proxy = yaml.safe_load_all(init_configuration(cluster, "master", "192.168.10.50"))
    assert kubelet.items() >= {**more, "cgroupDriver": "systemd"}.items()
    assert proxy == {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
    }
    assert init["nodeRegistration"]["ignorePreflightErrors"] == ["SystemVerification"]
    (join,) = yaml.safe_load_all(join_configuration(cluster, "worker", "192.168.10.101", "a.b", HASH))
    assert join["nodeRegistration"]["ignorePreflightErrors"] == ["SystemVerification"]


def test_no_token_is_in_the_file_and_that_of_init_lives_minutes() -> None:
    init = next(yaml.safe_load_all(init_configuration(CLUSTER, "master", "192.168.10.50")))
    (token,) = init["bootstrapTokens"]
    assert "token" not in token
    assert token["ttl"] == "15m0s"


def test_every_file_that_the_api_server_reads_is_mounted() -> None:
    server = list(yaml.safe_load_all(init_configuration(CLUSTER, "master", "192.168.10.50")))[1]["apiServer"]
    given = {item["name"]: item["value"] for item in server["extraArgs"]}
    mounted = {item["hostPath"]: item["readOnly"] for item in server["extraVolumes"]}
    assert mounted[given["audit-policy-file"]] is True
    assert mounted[given["encryption-provider-config"]] is True
    assert mounted[given["audit-log-path"].rpartition("/")[0]] is False


def test_who_joins_pins_the_ca() -> None:
    (join,) = yaml.safe_load_all(
        join_configuration(CLUSTER, "worker", "192.168.10.101", "abcdef.0123456789abcdef", HASH)
    )
    assert join["discovery"] == {
        "bootstrapToken": {
            "apiServerEndpoint": "cluster:6443",
            "token": "abcdef.0123456789abcdef",
            "caCertHashes": [HASH],
        }
    }
    assert join["nodeRegistration"]["kubeletExtraArgs"] == [{"name": "node-ip", "value": "192.168.10.101"}]


def test_the_audit_log_never_has_the_contents_of_secrets() -> None:
    rules = yaml.safe_load(audit_policy())["rules"]
    first = next(rule for rule in rules if any("secrets" in item["resources"] for item in rule.get("resources", ())))
    assert first["level"] == "Metadata"
    before = rules[: rules.index(first)]
    assert {rule["level"] for rule in before} == {"None"}
    assert "verbs" not in first


def test_secrets_are_written_encrypted() -> None:
    key = base64.b64encode(bytes(32)).decode()
    (rule,) = yaml.safe_load(encryption_configuration(key))["resources"]
    assert rule["resources"] == ["secrets"]
    assert list(rule["providers"][0]) == ["secretbox"]
    for wrong in ("", "short", base64.b64encode(bytes(16)).decode()):
        with pytest.raises(ValueError, match="32 bytes"):
            encryption_configuration(wrong)


def test_a_kubelet_serves_by_a_certificate_of_the_clusters_ca_and_the_api_server_demands_it() -> None:
    _, cluster, kubelet = yaml.safe_load_all(init_configuration(CLUSTER, "master", "192.168.10.50"))
    given = {item["name"]: item["value"] for item in cluster["apiServer"]["extraArgs"]}
    assert given["kubelet-certificate-authority"] == "/etc/kubernetes/pki/ca.crt"
    assert kubelet["serverTLSBootstrap"] is True
