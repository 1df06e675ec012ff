"""Certificates by which kubelets serve: which of a node's requests for one may be approved.

A kubelet asks for its own serving certificate (``serverTLSBootstrap``), and nothing in Kubernetes approves that: it
would let any node be taken for another. Source:
https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

SIGNER = "kubernetes.io/kubelet-serving"
_USAGES = {"digital signature", "key encipherment", "server auth"}


def approvable(said: str, name: str, address: str) -> tuple[list[str], list[str]]:
    """Return the node's requests that wait for an approval: names of those that are in order, and why others are not.

    In order is what asks, as the node itself, for a server's certificate of nothing but the node's own name and
    address.

    Args:
        said: a list of requests in JSON, as ``kubectl get csr -o json`` gives it.
        name, address: of the node, as the site says.

    Raises:
        ValueError: it is no such list.
    """
    user = f"system:node:{name}"
    good, bad = [], []
    try:
        items = json.loads(said)["items"]
    except (json.JSONDecodeError, LookupError, TypeError):
        raise ValueError("kubectl gave no list of requests") from None
    for item in items:
        spec = item["spec"]
        if spec.get("signerName") != SIGNER or spec.get("username") != user or item.get("status", {}).get("conditions"):
            continue
        wrong = _wrong(spec, user, name, address)
        request = item["metadata"]["name"]
        if wrong:
            bad.append(f"{request} {wrong}")
        else:
            good.append(request)
    return good, bad


def _wrong(spec: Mapping[str, Any], user: str, name: str, address: str) -> str:
    if "system:nodes" not in spec.get("groups", ()):
        return "does not come from a node"
    usages = set(spec.get("usages", ()))
    if "server auth" not in usages or not usages <= _USAGES:
        return f"is for {', '.join(sorted(usages)) or 'nothing'}"
    try:
        request = x509.load_pem_x509_csr(base64.b64decode(spec["request"], validate=True))
        subject = [(item.oid, item.value) for item in request.subject]
        names = list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (binascii.Error, ValueError, KeyError, x509.ExtensionNotFound):
        return "cannot be read, or names nobody"
    if not request.is_signature_valid:
        return "is not signed by its own key"
    if sorted(subject, key=str) != sorted(
        [(NameOID.ORGANIZATION_NAME, "system:nodes"), (NameOID.COMMON_NAME, user)], key=str
    ):
        return f"has the subject {request.subject.rfc4514_string()}"
    others = [str(item.value) for item in names if not _is_own(item, name, address)]
    return f"asks for {', '.join(others)} as well, which is not {name} at {address}" if others else ""


def _is_own(item: x509.GeneralName, name: str, address: str) -> bool:
    if isinstance(item, x509.DNSName):
        return item.value == name
    return isinstance(item, x509.IPAddress) and str(item.value) == address
