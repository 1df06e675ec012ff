"""Step ``pod-network``: Flannel on the cluster, as :mod:`infra.kubeadm.flannel` describes it, or another network."""

from __future__ import annotations

from pathlib import Path

from configs.kubernetes import NamedManifest
from infra.kubeadm.configuration import Cluster
from infra.kubeadm.flannel import NAME, NAMESPACE, flannel_manifest
from infra.site.step import Step
from infra.site.steps.applied import applied_step
from infra.site.steps.named import read_manifest


def pod_network_step(machine: str, cluster: Cluster, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step that gives the cluster its network of pods, by the control plane ``machine``."""
    rollouts = ((NAMESPACE, f"daemonset/{NAME}"),)
    return applied_step(
        "pod-network", machine, "Flannel", flannel_manifest(cluster.pods, cluster.images), rollouts, after
    )


def named_network_step(machine: str, named: NamedManifest, root: Path, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step for another network than Flannel, whose manifest the site names.

    Args:
        root: the checkout.

    Raises:
        UserError: see :func:`infra.site.steps.named.read_manifest`.
    """
    text, rollouts = read_manifest(named, "kubernetes.network", root)
    return applied_step("pod-network", machine, "pod network", text, rollouts, after)
