"""What a node's containerd must know to pull from the registry: its address, and the CA that signed its certificate.

containerd reads ``certs.d/HOST[:PORT]/hosts.toml`` at every pull, so nothing has to be restarted. Source:
https://github.com/containerd/containerd/blob/main/docs/hosts.md. Logins come with the pod; what no pod's secret can be
for, the images of Kubernetes itself, needs one here: kubeadm's pulls and those of sandboxes know no other.
"""

from __future__ import annotations

import base64
import json
from pathlib import PurePosixPath

from configs.registry import Registry
from infra.registry.login import Login

CERTS_D = PurePosixPath("/etc/containerd/certs.d")


def containerd_files(
    registry: Registry, ca_pem: str | None, folder: PurePosixPath = CERTS_D, login: Login | None = None
) -> dict[PurePosixPath, str]:
    """Return the files for a node, by absolute path: ``hosts.toml`` and, with a CA of one's own, ``ca.crt``.

    Args:
        ca_pem: the text of the CA's file; None where the node trusts the registry's CA by itself.
        folder: containerd's ``config_path`` on the node.
        login: for every pull from there; the file is secret then. The registry must take it as it is (HTTP Basic).
    """
    place = folder / registry.address
    said = ['capabilities = ["pull", "resolve"]']  # without a CA, those of the system count; never without TLS
    if ca_pem is not None:
        said.append(f"ca = {json.dumps(str(place / 'ca.crt'))}")
    header = []
    if login is not None:
        basic = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
        header = [f"Authorization = {json.dumps(f'Basic {basic}')}"]
    # Twice the same: containerd 1.6 reads no file without a `[host]`, and after it every containerd tries the server,
    # so that without our CA or login there, whatever goes wrong would be told as an unknown CA or a wrong login.
    host = json.dumps(registry.url)
    lines = [f"server = {host}", *said, *(["[header]", *header] if header else [])]
    lines += [f"[host.{host}]", *said, *([f"[host.{host}.header]", *header] if header else [])]
    files = {place / "hosts.toml": "\n".join(lines) + "\n"}
    return files if ca_pem is None else {**files, place / "ca.crt": ca_pem}
