"""The cluster's health as a pure step, and its certificates as openssl sees them."""

from __future__ import annotations

import base64
import datetime
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from infra.site.facts import Reading
from infra.site.step import Change
from infra.site.steps.cluster_health import cluster_health_step

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
STEP = cluster_health_step("master", NOW + datetime.timedelta(days=3000), ())
FINE = "MemoryPressure=False DiskPressure=False PIDPressure=False Ready=True "
LONG_AGO = "\t2029-12-31T20:00:00Z\tkubelet is posting ready status"
JUST_NOW = "\t2029-12-31T23:56:00Z\tKubelet stopped posting node status."
APART = (
    "\t2029-12-31T20:00:00Z\tcontainer runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
    "message:Network plugin returns error: cni plugin not initialized"
)
RUN = "kube-system\tDeployment/coredns\t2\t2\nkube-flannel\tDaemonSet/kube-flannel-ds\t1\t1\n"


def found(
    nodes: str = f"master\t{FINE}{LONG_AGO}\n",
    workloads: str = RUN,
    certificates: str = "",
    *,
    ends_in_days: int = 3000,
    runs_s: int = 9000,
    awaits_network: bool = False,
) -> list[Change]:
    ends = NOW + datetime.timedelta(days=ends_in_days)
    step = cluster_health_step("master", ends, (), awaits_network=awaits_network)
    answers = (nodes, workloads, certificates, f"{NOW.timestamp():.0f}\n", f" {runs_s}\n")
    return list(step.changes(dict(zip(step.facts, (Reading(0, text) for text in answers), strict=True))))


def test_a_healthy_cluster_is_left_alone() -> None:
    assert found() == []
    assert not STEP.repairable


@pytest.mark.parametrize(
    ("ready", "why"), [("Unknown", "worker has been silent since 2029-12-31 20:00 UTC"), ("False", "is not ready")]
)
def test_a_lost_node_is_waited_for_and_told(ready: str, why: str) -> None:
    (change,) = found(f"master\t{FINE}{LONG_AGO}\nworker\t{FINE.replace('Ready=True', f'Ready={ready}')}{LONG_AGO}\n")
    assert change.what == "have node worker back"
    assert why in change.why
    # Nobody of the site: it cannot be asked.
    assert (change.note, change.by_hand) == (False, "is worker on? `journalctl -u kubelet` there")
    assert "wait node/worker --for=condition=Ready" in str(change.actions).replace("', '", " ")


def test_a_node_without_room_is_told() -> None:
    (change,) = found(f"master\t{FINE.replace('DiskPressure=False', 'DiskPressure=True')}{LONG_AGO}\n")
    assert (change.why, change.actions) == ("it is short of disk", ())


def test_what_every_cluster_needs_is_waited_for_and_other_peoples_pods_are_theirs() -> None:
    more = (
        "kube-system\tDeployment/coredns\t2\t\nkube-flannel\tDaemonSet/kube-flannel-ds\t3\t1\nteam\tDeployment/x\t1\t\n"
    )
    dns, flannel = found(workloads=more)
    assert (dns.why, dns.note) == ("0 of 2 of its pods are ready", False)
    assert "rollout status -n kube-flannel daemonset/kube-flannel-ds" in str(flannel.actions).replace("', '", " ")


def test_an_api_server_that_does_not_answer_is_told() -> None:
    readings = {fact: Reading(1, "connection refused") for fact in STEP.facts}
    readings |= {STEP.facts[2]: Reading(0), STEP.facts[3]: Reading(0, "1893456000"), STEP.facts[4]: Reading(0, "9000")}
    (change,) = STEP.changes(readings)
    assert change.why == "it does not answer: connection refused"
    assert (bool(change.by_hand), change.note) == (True, False)
    # After its machine's start, it is waited for by whoever has the time.
    (change,) = STEP.changes(readings | {STEP.facts[4]: Reading(0, " 40")})
    assert (change.by_hand, change.note, len(change.actions)) == ("", True, 1)


def test_what_is_starting_is_waited_for_and_no_fault() -> None:
    lost = f"worker\t{FINE.replace('Ready=True', 'Ready=Unknown')}"
    (change,) = found(f"{lost}{JUST_NOW}\n")
    assert (change.what, change.note, len(change.actions)) == ("wait for node worker", True, 1)
    # All machines have just been switched on: what the cluster last heard is from before.
    (change,) = found(f"{lost}{LONG_AGO}\n", runs_s=60)
    assert change.note
    # A node that came back just now starts its pods.
    dns = "kube-system\tDeployment/coredns\t2\t1\n"
    (change,) = found(f"worker\t{FINE}{JUST_NOW}\n", dns)
    assert (change.note, len(change.actions)) == (True, 1)
    (change,) = found(workloads=dns)
    assert not change.note


def test_a_network_that_somebody_else_brings_is_told_and_not_waited_for() -> None:
    nodes = "".join(f"{name}\t{FINE.replace('Ready=True', 'Ready=False')}{APART}\n" for name in ("master", "worker"))
    workloads = "kube-system\tDeployment/coredns\t2\t\nkube-system\tDaemonSet/kube-proxy\t2\t2\n"
    network, dns = found(nodes, workloads, awaits_network=True)
    assert "kubernetes.network: none" in network.what
    assert network.why.endswith("master, worker")
    assert dns.why == "0 of 2 of its pods are ready: pods have no network yet"
    assert all(item.note and not item.actions for item in (network, dns))
    # Where the site brings it itself, that is a fault.
    first, *_ = found(nodes, workloads)
    assert first.note is False
    assert first.why.startswith("master is not ready: container runtime network not ready")


def test_the_sites_own_ca_is_told_in_time() -> None:
    (change,) = found(ends_in_days=29)
    assert "2030-01-30" in change.why


def test_certificates_that_end_are_found_by_openssl(tmp_path: Path) -> None:
    (tmp_path / "pki/etcd").mkdir(parents=True)
    for name, days in (("pki/apiserver", 20), ("pki/front-proxy-client", -1), ("pki/etcd/ca", 10), ("pki/ca", 300)):
        (tmp_path / f"{name}.crt").write_bytes(certificate(days))
    data = base64.b64encode(certificate(5)).decode()
    (tmp_path / "admin.conf").write_text(f"users:\n- user:\n    client-certificate-data: {data}\n")
    (tmp_path / "scheduler.conf").write_text(
        f"    client-certificate-data: {base64.b64encode(certificate(99)).decode()}"
    )
    words = [word.replace("/etc/kubernetes", str(tmp_path)) for word in STEP.facts[2].argv]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    told = {change.what: change for change in found(certificates=done.stdout)}
    assert list(told) == [
        "renew /etc/kubernetes/pki/apiserver.crt",
        "renew /etc/kubernetes/pki/front-proxy-client.crt",
        "renew /etc/kubernetes/pki/etcd/ca.crt",
        "renew /etc/kubernetes/admin.conf",
    ]
    assert "ends within 30 days" in told["renew /etc/kubernetes/admin.conf"].why
    assert "has ended" in told["renew /etc/kubernetes/pki/front-proxy-client.crt"].why
    assert "manual-rotation" in told["renew /etc/kubernetes/pki/etcd/ca.crt"].by_hand
    assert "kubeadm certs renew all" in told["renew /etc/kubernetes/pki/apiserver.crt"].by_hand


def certificate(days: int) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(now - datetime.timedelta(days=400))
    built = built.not_valid_after(now + datetime.timedelta(days=days))
    return built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
