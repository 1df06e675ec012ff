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
    network = ((machine, "control-plane" if wanted.network == "none" else "pod-network"),)
    if "metrics-server" in wanted.addons:
        certificate = authority.server("metrics-server", (metrics_server.HOST,))
        image = from_mirror(METRICS_SERVER, mirror)
        text = documents(metrics_server.metrics_server_manifests(certificate, authority.pem, image))
        rollouts: Rollouts = ((metrics_server.NAMESPACE, f"deployment/{metrics_server.NAME}"),)
        yield applied_step("metrics-server", machine, "metrics-server", text, rollouts, network, secret=True)
    if "dashboard" in wanted.addons:
        # By forwarded ports alone: nothing of it can be reached from the site's network.
        certificate = authority.server("dashboard", ("localhost", "127.0.0.1", dashboard.HOST))
        text = documents(dashboard.dashboard_manifests(certificate, from_mirror(HEADLAMP, mirror)))
        rollouts = ((dashboard.NAMESPACE, f"deployment/{dashboard.NAME}"),)
        yield applied_step("dashboard", machine, "dashboard", text, rollouts, network, secret=True)
    if "gpu" in wanted.addons:
        # Where no node has a GPU it has no pods, and once one has it need not be thought of.
        text = documents(device_plugin_manifests(from_mirror(DEVICE_PLUGIN, mirror)))
        rollouts = ((device_plugin.NAMESPACE, f"daemonset/{device_plugin.NAME}"),)
        yield applied_step("device-plugin", machine, "device-plugin", text, rollouts, network)
    if wanted.csi_smb is not None:
        text, rollouts = read_manifest(wanted.csi_smb, "kubernetes.csi_smb", root)
        yield applied_step("csi-driver-smb", machine, "csi-driver-smb", text, rollouts, network)


def documents(manifests: Iterable[Mapping[str, Any]]) -> str:
    """Return manifests as one file of YAML documents."""
    return "---\n".join(yaml.safe_dump(dict(item), sort_keys=False) for item in manifests)
