"""The administrator's way to the site's cluster from this machine: a kubeconfig in the site's folder (0600)."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from configs.problems import Problem, UserError
from configs.site import Site
from infra.kubeadm.configuration import PORT
from infra.kubernetes.client import site_kubeconfig
from infra.machines.commands import Command
from infra.site.inventory import holder, machines_of, site_folder
from infra.site.session import reached
from infra.site.steps.control_plane import ADMIN
from infra.stack.credentials import write_private


def fetch_kubeconfig(site: Site, home: Path) -> Path | None:
    """Fetch the kubeconfig of the site's control plane, and return its path; None where the site makes no cluster.

    Its certificate lives for a year and is renewed there, so it is fetched anew after each provisioning. Whoever has it
    may do everything.

    Args:
        home: the checkout's state folder.

    Raises:
        UserError: the control plane cannot be reached, or has none yet.
    """
    control_plane = holder(machines_of(site, home), "control-plane")
    if site.kubernetes is None or control_plane is None:
        return None
    with reached({control_plane.name: control_plane}, site_folder(home)) as connections:
        said = connections[control_plane.name].run(Command(("cat", str(ADMIN)))).stdout
    try:
        text = by_address(said, control_plane.address)
    except ValueError as error:
        where = f"{control_plane.name}, {ADMIN}"
        raise UserError(Problem(where, str(error), "look at it there: `kubeadm kubeconfig user` makes one")) from None
    path = site_kubeconfig(home)
    write_private(path, text)
    return path


def by_address(text: str, address: str) -> str:
    """Return a kubeconfig whose API server is called by its address: this machine need not know the cluster's name.

    The certificate of a control plane that the site made holds both.

    Raises:
        ValueError: it is no kubeconfig; the message shows nothing of it.
    """
    try:
        values = yaml.safe_load(text)
        for item in values["clusters"]:
            item["cluster"]["server"] = f"https://{address}:{PORT}"
            if not item["cluster"].get("certificate-authority-data"):
                raise ValueError("says of no CA by which the API server is known")
    except (yaml.YAMLError, LookupError, TypeError, AttributeError):
        raise ValueError("is no kubeconfig") from None
    written: str = yaml.safe_dump(values, sort_keys=False)
    return written


def ensure_kubeconfig(site: Site, home: Path) -> None:
    """Fetch the kubeconfig where the cluster is the site's own, nobody names another one, and it is not there yet.

    Raises:
        UserError: as :func:`fetch_kubeconfig`.
    """
    named = (site.cluster is not None and site.cluster.kubeconfig is not None) or os.environ.get("KUBECONFIG")
    if not named and not site_kubeconfig(home).exists() and (site.hosts or site.vms):
        fetch_kubeconfig(site, home)


def refuse_another(site: Site, own: Path) -> None:
    """Refuse a KUBECONFIG that would win over the cluster which the site has just made.

    Args:
        own: its kubeconfig.

    Raises:
        UserError: the environment names another file, and the site's file none.
    """
    named = os.environ.get("KUBECONFIG")
    if not named or (site.cluster is not None and site.cluster.kubeconfig is not None):
        return
    if Path(named).expanduser().resolve() != own.resolve():
        what = f"is set to {named}: the platform would go there, and not to the cluster that the site has made"
        raise UserError(Problem("KUBECONFIG", what, f"unset it, or write `kubeconfig: {own}` into section cluster"))
