"""Step ``pod-network``: Flannel on the cluster, as :mod:`infra.kubeadm.flannel` describes it."""

from __future__ import annotations

from collections.abc import Iterator

from infra.kubeadm.configuration import Cluster
from infra.kubeadm.flannel import NAME, NAMESPACE, flannel_manifest
from infra.kubeadm.joining import FOLDER
from infra.machines.commands import Command, File
from infra.site.control_plane import ADMIN
from infra.site.facts import Fact, Facts
from infra.site.reading import file_changes, file_fact
from infra.site.step import Change, Step

_KUBECTL = ("kubectl", f"--kubeconfig={ADMIN}", "--request-timeout=15s")
_MANIFEST = FOLDER / "mlops-flannel.yaml"
# 0: as in the file; 1: it differs, and the output says how; more: the API server does not answer.
_DIFFERS = Fact((*_KUBECTL, "diff", "--server-side", "--field-manager=mlops", "-f", str(_MANIFEST)))
_ROLLOUT_S = 600


def pod_network_step(machine: str, cluster: Cluster, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step that gives the cluster its network of pods, by the control plane ``machine``."""
    manifest = File(_MANIFEST, flannel_manifest(cluster.pods), 0o600)
    apply = (*_KUBECTL, "apply", "--server-side", "--force-conflicts", "--field-manager=mlops", "-f", str(_MANIFEST))
    wait = (*_KUBECTL[:-1], "rollout", "status", "-n", NAMESPACE, f"daemonset/{NAME}", f"--timeout={_ROLLOUT_S}s")

    def changes(facts: Facts) -> Iterator[Change]:
        written = file_changes(manifest, facts)
        yield from written
        if written or not facts[_DIFFERS].ok:
            why = "it is described anew" if written else "the cluster has another one, or none"
            actions = (Command(apply), Command(wait, timeout_s=_ROLLOUT_S + 30))
            yield Change("apply Flannel", why, actions, "" if written else facts[_DIFFERS].text)

    return Step("pod-network", machine, (file_fact(manifest), _DIFFERS), changes, after)
