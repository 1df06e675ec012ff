"""How a machine gets into a cluster: a token of minutes, and the digest of the CA that it must see there.

Source: https://kubernetes.io/docs/reference/setup-tools/kubeadm/kubeadm-join/#discovering-what-cluster-ca-to-trust.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from infra.machines.commands import Command

FOLDER = PurePosixPath("/etc/kubernetes")
_TTL = "15m"
_SCRIPT = f"""\
set -eu
kubeadm token create --kubeconfig "$1/admin.conf" --ttl {_TTL} --description "join of $2"
openssl x509 -in "$1/pki/ca.crt" -noout -pubkey | openssl pkey -pubin -outform der | sha256sum
"""


def token_command(machine: str, folder: PurePosixPath = FOLDER) -> Command:
    """Return what the control plane is asked when ``machine`` is to join; its answer is secret for 15 minutes.

    Args:
        folder: of kubeadm's files there.
    """
    return Command(("sh", "-c", _SCRIPT, "sh", str(folder), machine))


def read_token(said: str) -> tuple[str, str]:
    """Return token and CA digest (``sha256:`` and 64 hexadecimal digits) from the answer to :func:`token_command`.

    Raises:
        ValueError: they are not in it; the message shows nothing of it.
    """
    token = re.search(r"(?m)^[a-z0-9]{6}\.[a-z0-9]{16}$", said)
    digest = re.search(r"(?m)^([0-9a-f]{64})\s+-$", said)
    if token is None or digest is None:
        raise ValueError("kubeadm gave no token, or openssl no digest")
    return token[0], f"sha256:{digest[1]}"
