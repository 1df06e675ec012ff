"""Requests for kubelets' serving certificates: only a node's own, for its own name and address."""

from __future__ import annotations

import base64
import ipaddress
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.kubeadm.serving import SIGNER, approvable

NAME, ADDRESS = "worker", "192.168.10.101"


def request(
    dns: tuple[str, ...] = (NAME,),
    addresses: tuple[str, ...] = (ADDRESS,),
    subject: str = f"system:node:{NAME}",
    organization: str = "system:nodes",
) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
        x509.NameAttribute(NameOID.COMMON_NAME, subject),
    ]
    others: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
    others += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    built = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    if others:
        built = built.add_extension(x509.SubjectAlternativeName(others), critical=False)
    return base64.b64encode(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)).decode()


def listed(text: str, status: dict[str, Any] | None = None, **spec: Any) -> str:
    asked = {
        "signerName": SIGNER,
        "username": f"system:node:{NAME}",
        "groups": ["system:nodes", "system:authenticated"],
        "usages": ["digital signature", "server auth"],
        "request": text,
    } | spec
    return json.dumps({"items": [{"metadata": {"name": "csr-1"}, "spec": asked, "status": status or {}}]})


def test_a_nodes_own_request_is_approved() -> None:
    assert approvable(listed(request()), NAME, ADDRESS) == (["csr-1"], [])
    assert approvable(listed(request(dns=())), NAME, ADDRESS) == (["csr-1"], [])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (request(dns=(NAME, "master")), "asks for master as well"),
        (request(addresses=(ADDRESS, "192.168.10.50")), "asks for 192.168.10.50 as well"),
        (request(addresses=("192.168.10.102",)), "asks for 192.168.10.102 as well"),
        (request(subject="system:node:master"), "has the subject"),
        (request(organization="system:masters"), "has the subject"),
        (request(dns=(), addresses=()), "names nobody"),
        ("nonsense", "cannot be read"),
    ],
)
def test_whoever_asks_for_more_is_told(text: str, why: str) -> None:
    good, (bad,) = approvable(listed(text), NAME, ADDRESS)
    assert good == []
    assert why in bad


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"usages": ["server auth", "client auth"]}, "is for client auth, server auth"),
        ({"usages": ["digital signature"]}, "is for digital signature"),
        ({"groups": ["system:authenticated"]}, "does not come from a node"),
    ],
)
def test_a_request_for_another_use_is_told(spec: dict[str, Any], why: str) -> None:
    good, (bad,) = approvable(listed(request(), **spec), NAME, ADDRESS)
    assert good == []
    assert why in bad


def test_requests_of_others_and_those_decided_are_nobodys_matter() -> None:
    for said in (
        listed(request(), username="system:node:master"),
        listed(request(), signerName="kubernetes.io/kube-apiserver-client-kubelet"),
        listed(request(), status={"conditions": [{"type": "Approved"}]}),
        json.dumps({"items": []}),
    ):
        assert approvable(said, NAME, ADDRESS) == ([], [])


def test_an_answer_that_is_no_list_is_told() -> None:
    with pytest.raises(ValueError, match="no list of requests"):
        approvable("error: connection refused", NAME, ADDRESS)
