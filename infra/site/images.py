"""Which images a cluster is made of, and what they are called in the site's mirror of them (``kubernetes.images``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from configs.problems import Problem, UserError
from configs.site import SITE_FILE, Site
from infra.addons.images import DEVICE_PLUGIN, HEADLAMP, METRICS_SERVER
from infra.kubeadm.flannel import IMAGE, PLUGIN_IMAGE, SOURCE
from infra.machines.commands import Command
from infra.site.inventory import holder, machines_of, site_folder
from infra.site.session import reached

_OF_ADDONS = {"metrics-server": METRICS_SERVER, "dashboard": HEADLAMP, "gpu": DEVICE_PLUGIN}


def kubernetes_images(site: Site, home: Path) -> list[str]:
    """Return all images by the names that their projects give them; the control plane's own kubeadm is asked.

    Args:
        home: the checkout's state folder.

    Raises:
        UserError: the site has no cluster, its control plane cannot be asked, or has no kubeadm yet.
    """
    machines = machines_of(site, home)
    control_plane = holder(machines, "control-plane")
    if site.kubernetes is None or control_plane is None:
        what = "describes no cluster"
        raise UserError(Problem(SITE_FILE, what, "add `kubernetes:` and a machine with `roles: [control-plane]`"))
    name = control_plane.name
    ask = Command(("kubeadm", "config", "images", "list", f"--kubernetes-version=v{site.kubernetes.version}"))
    with reached({name: control_plane}, site_folder(home)) as connections:
        listed = connections[name].run(ask).stdout.split()
    flannel = [f"{SOURCE}/{name}" for name in (IMAGE, PLUGIN_IMAGE) if site.kubernetes.network == "flannel"]
    return [*listed, *flannel, *(_OF_ADDONS[addon] for addon in site.kubernetes.addons)]


def mirrored(images: list[str], mirror: str) -> Iterator[tuple[str, str]]:
    """Yield each image and its name in the mirror, which is flat: kubeadm drops what is before a name's last part.

    Args:
        mirror: registry and prefix.
    """
    for image in images:
        yield image, f"{mirror}/{image.rpartition('/')[2]}"
