"""A node that got another address: what of kubeadm's files has the old one, and how it gets the new one.

Certificates are signed anew by the same CAs, and no data is touched: etcd reads its own from where they were. kubeadm
has no command for it; these are its own phases, in the order of an init. Source:
https://kubernetes.io/docs/reference/setup-tools/kubeadm/kubeadm-init-phase/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from infra.kubeadm.configuration import PORT
from infra.kubeadm.joining import FOLDER
from infra.machines.commands import Command, File, Removal
from infra.site.facts import Fact, Facts
from infra.site.step import Change

FLAGS = PurePosixPath("/var/lib/kubelet/kubeadm-flags.env")
"""What kubeadm has told this node's kubelet, its address included."""
NODE_IP = Fact(("grep", "-o", "node-ip=[0-9.]*", str(FLAGS)))
_RESTART = Command(("systemctl", "restart", "kubelet.service"))
_OWN_ADDRESS = ("apiserver", "etcd/server", "etcd/peer")
_PHASES = ("certs apiserver", "certs etcd-server", "certs etcd-peer", "etcd local", "control-plane all")
_DRAFT = FOLDER / "mlops-moved.yaml"


def moved_from(file: File, present: str, address: str) -> str | None:
    """Return the control plane's address of before, None when it is the same or more than that has changed.

    Args:
        file: kubeadm's configuration as it is wanted. present: its text on the machine. address: the wanted one.
    """
    found = re.search(r"(?m)^  advertiseAddress: (\S+)$", present)
    if found is None or found[1] == address:
        return None
    return found[1] if _replaced(present, found[1], address) == file.text else None


def moved_control_plane(file: File, old: str, address: str, ready: Fact, wait_s: int) -> Change:
    """Return the change that makes kubeadm's control plane one of ``address``.

    Args:
        file: kubeadm's configuration with the new address. ready: answers once the API server does.
    """
    kubeadm = [Command(("kubeadm", "init", "phase", *phase.split(), f"--config={_DRAFT}")) for phase in _PHASES]
    certificates = [str(FOLDER / "pki" / f"{name}.{kind}") for name in _OWN_ADDRESS for kind in ("crt", "key")]
    wait = f"for i in $(seq {wait_s}); do {' '.join(ready.argv)} && exit; sleep 1; done; exit 1"
    upload = ("kubeadm", "init", "phase", "upload-config", "kubeadm", f"--config={_DRAFT}")
    kubectl = ready.argv[:2]
    # A pod of the node's own network keeps the names of machines that it was started with.
    proxies = (*kubectl, "rollout", "restart", "--namespace=kube-system", "daemonset/kube-proxy")
    return Change(
        f"make it the control plane at {address}",
        f"it was at {old}",
        (
            File(_DRAFT, file.text, 0o600),
            Command(("rm", "-f", *certificates)),
            _sed(f"s#https://{old}:{PORT}#https://{address}:{PORT}#", *_CONFIGS),
            *kubeadm,
            _sed(f"s#node-ip={old}#node-ip={address}#", str(FLAGS)),
            _RESTART,
            Command(("sh", "-c", wait), timeout_s=wait_s * 5),
            Command(upload),
            Command(proxies),
            # Nor does Flannel tell the others an address that it has got since its start; another network is not there.
            Command(
                (*kubectl, "rollout", "restart", "--namespace=kube-flannel", "daemonset"), accepted=frozenset({0, 1})
            ),
            # Last: until then the next run does all of this again.
            file,
            Removal(_DRAFT),
        ),
    )


def moved_kubelet(facts: Facts, address: str) -> Iterator[Change]:
    """Return the change that makes a joined node's kubelet one of ``address``; none when it is."""
    found = facts[NODE_IP]
    old = found.text.strip().partition("=")[2]
    if found.ok and old and old != address:
        actions = (_sed(f"s#node-ip={old}#node-ip={address}#", str(FLAGS)), _RESTART)
        yield Change(f"let kubelet be at {address}", f"it was at {old}", actions)


_CONFIGS = tuple(
    str(FOLDER / f"{name}.conf") for name in ("admin", "super-admin", "kubelet", "controller-manager", "scheduler")
)


def _sed(rule: str, *files: str) -> Command:
    return Command(("sed", "--in-place", rule, *files))


def _replaced(text: str, old: str, address: str) -> str:
    return re.sub(rf"(?<![\d.]){re.escape(old)}(?![\d.])", address, text)
