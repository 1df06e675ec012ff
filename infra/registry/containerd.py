"""What a node's containerd must know to pull from the registry: its address, and the CA that signed its certificate.

containerd reads ``certs.d/HOST[:PORT]/hosts.toml`` at every pull, so nothing has to be restarted. Source:
https://github.com/containerd/containerd/blob/main/docs/hosts.md. Logins are no part of it: they come with the pod.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from configs.registry import Registry

CERTS_D = PurePosixPath("/etc/containerd/certs.d")


def containerd_files(
    registry: Registry, ca_pem: str | None, folder: PurePosixPath = CERTS_D
) -> dict[PurePosixPath, str]:
    """Return the files for a node, by absolute path: ``hosts.toml`` and, with a CA of one's own, ``ca.crt``.

    Args:
        ca_pem: the text of the CA's file; None where the node trusts the registry's CA by itself.
        folder: containerd's ``config_path`` on the node.
    """
    place = folder / registry.address
    # All of it for the server itself: a `[host]` beside it would be tried first, and then the server without our CA,
    # so that whatever goes wrong is told as an unknown CA. Without a CA, those of the system count. Never without TLS.
    lines = [f"server = {json.dumps(registry.url)}", 'capabilities = ["pull", "resolve"]']
    if ca_pem is None:
        return {place / "hosts.toml": "\n".join(lines) + "\n"}
    lines.append(f"ca = {json.dumps(str(place / 'ca.crt'))}")
    return {place / "hosts.toml": "\n".join(lines) + "\n", place / "ca.crt": ca_pem}
