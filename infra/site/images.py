"""Which images a cluster is made of, and what they are called in the site's mirror of them (``kubernetes.images``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from configs.problems import Problem, UserError
from configs.site import SITE_FILE, Site
from infra.addons.images import DEVICE_PLUGIN, HEADLAMP, METRICS_SERVER
from infra.kubeadm.flannel import IMAGE, PLUGIN_IMAGE, SOURCE
from infra.kubeadm.releases import images_command
from infra.site.inventory import holder, machines_of, site_folder
from infra.site.session import reached
from infra.site.steps.kubernetes import repository_of
from infra.site.steps.runtime import IMAGES, PAUSE

_OF_ADDONS = {"metrics-server": METRICS_SERVER, "dashboard": HEADLAMP, "gpu": DEVICE_PLUGIN}


def kubernetes_images(site: Site, home: Path) -> list[str]:
    """Return all images by the names that their projects give them; kubeadm of the site's release is asked.

    It is asked on the control plane, which may have another one yet: then apt fetches it, and it is not installed.

    Args:
        home: the checkout's state folder.

    Raises:
        UserError: the site has no cluster, or its control plane cannot be asked or get that kubeadm.
    """
    machines = machines_of(site, home)
    control_plane = holder(machines, "control-plane")
    if site.kubernetes is None or control_plane is None:
        what = "describes no cluster"
        raise UserError(Problem(SITE_FILE, what, "add `kubernetes:` and a machine with `roles: [control-plane]`"))
    name = control_plane.name
    ask = images_command(site.kubernetes.version, *repository_of(site.kubernetes))
    with reached({name: control_plane}, site_folder(home)) as connections:
        listed = connections[name].run(ask).stdout.split()
    # containerd keeps its sandboxes' image through upgrades: a newer kubeadm names another one.
    sandbox = f"{IMAGES}/{PAUSE}"
    listed += [] if sandbox in listed else [sandbox]
    flannel = [f"{SOURCE}/{name}" for name in (IMAGE, PLUGIN_IMAGE) if site.kubernetes.network == "flannel"]
    return [*listed, *flannel, *(_OF_ADDONS[addon] for addon in site.kubernetes.addons)]


def mirrored(images: list[str], mirror: str) -> Iterator[tuple[str, str]]:
    """Yield each image and its name in the mirror, which is flat: kubeadm drops what is before a name's last part.

    Args:
        mirror: registry and prefix.
    """
    for image in images:
        yield image, f"{mirror}/{image.rpartition('/')[2]}"
