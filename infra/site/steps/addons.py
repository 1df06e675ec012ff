"""Steps of what the cluster carries besides its nodes; the control plane applies all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from configs.kubernetes import Kubernetes
from infra.addons import dashboard, device_plugin, metrics_server
from infra.addons.device_plugin import device_plugin_manifests
from infra.addons.images import DEVICE_PLUGIN, HEADLAMP, METRICS_SERVER, from_mirror
from infra.site.authority import Authority
from infra.site.step import Step
from infra.site.steps.applied import Rollouts, applied_step
from infra.site.steps.named import read_manifest


def addon_steps(
    wanted: Kubernetes, machine: str, authority: Authority, root: Path, mirror: str | None = None
) -> Iterator[Step]:
    """Yield the steps of the site's add-ons.

    Args:
        machine: the control plane.
        authority: signs the certificates of metrics-server and dashboard.
        root: the checkout. mirror: see :func:`infra.addons.images.from_mirror`.
    """
    # Where somebody else brings the network no pod starts before that: cluster-health tells it, and waits for pods.
    awaits = wanted.network == "none"
    network = ((machine, "control-plane" if awaits else "pod-network"),)

    def step(name: str, text: str, rollouts: Rollouts, *, secret: bool = False) -> Step:
        return applied_step(name, machine, name, text, () if awaits else rollouts, network, secret=secret)

    if "metrics-server" in wanted.addons:
        certificate = authority.server("metrics-server", (metrics_server.HOST,))
        image = from_mirror(METRICS_SERVER, mirror)
        text = documents(metrics_server.metrics_server_manifests(certificate, authority.pem, image))
        rollouts: Rollouts = ((metrics_server.NAMESPACE, f"deployment/{metrics_server.NAME}"),)
        yield step("metrics-server", text, rollouts, secret=True)
    if "dashboard" in wanted.addons:
        # By forwarded ports alone: nothing of it can be reached from the site's network.
        certificate = authority.server("dashboard", ("localhost", "127.0.0.1", dashboard.HOST))
        text = documents(dashboard.dashboard_manifests(certificate, from_mirror(HEADLAMP, mirror)))
        rollouts = ((dashboard.NAMESPACE, f"deployment/{dashboard.NAME}"),)
        yield step("dashboard", text, rollouts, secret=True)
    if "gpu" in wanted.addons:
        # Where no node has a GPU it has no pods, and once one has it need not be thought of.
        text = documents(device_plugin_manifests(from_mirror(DEVICE_PLUGIN, mirror)))
        rollouts = ((device_plugin.NAMESPACE, f"daemonset/{device_plugin.NAME}"),)
        yield step("device-plugin", text, rollouts)
    if wanted.csi_smb is not None:
        text, rollouts = read_manifest(wanted.csi_smb, "kubernetes.csi_smb", root)
        yield step("csi-driver-smb", text, rollouts)


def documents(manifests: Iterable[Mapping[str, Any]]) -> str:
    """Return manifests as one file of YAML documents."""
    return "---\n".join(yaml.safe_dump(dict(item), sort_keys=False) for item in manifests)
