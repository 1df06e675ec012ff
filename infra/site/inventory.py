"""The machines of a site, virtual or not, as the steps see them: name, address, roles, login."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from configs.machines import Role
from configs.problems import Problem, UserError
from configs.site import SITE_FILE, Site

VM_USER = "mlops"
"""The account that a VM's seed makes for us."""


@dataclass(frozen=True)
class SiteMachine:
    """A machine of the site.

    Attributes:
        key: our private key for its account ``user``.
        labels: of its node. gpu: whether an NVIDIA GPU in it is for pods.
    """

    name: str
    address: str
    roles: tuple[Role, ...]
    user: str
    port: int
    key: Path
    labels: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = True


def site_folder(home: Path) -> Path:
    """Return the folder of what the site needs besides its file: keys, passwords, the CA. All of it 0600."""
    return home / "site"


def machines_of(site: Site, home: Path) -> dict[str, SiteMachine]:
    """Return all machines by name, hosts first.

    Args:
        home: the checkout's state folder.

    Raises:
        UserError: the site names none.
    """
    found = {
        name: SiteMachine(
            *(name, str(host.address), host.roles, host.ssh.user, host.ssh.port, host.ssh.key.expanduser()),
            labels=host.labels,
            gpu=host.gpu,
        )
        for name, host in site.hosts.items()
    }
    key = site_folder(home) / "id_ed25519"
    found |= {
        name: SiteMachine(name, str(vm.address), vm.roles, VM_USER, 22, key, vm.labels) for name, vm in site.vms.items()
    }
    if not found:
        raise UserError(
            Problem(SITE_FILE, "names no machines", "add `network:` and `hosts:`, as configs/site-thesis.yaml does")
        )
    return found


def holder(machines: dict[str, SiteMachine], role: Role) -> SiteMachine | None:
    """Return the one machine that has a role; None when there is none."""
    return next((machine for machine in machines.values() if role in machine.roles), None)
