"""Which steps a site consists of: roles in, steps out, in the order that they depend on each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from configs.kubernetes import Kubernetes, NamedManifest
from configs.problems import Problem, UserError
from configs.registry import DOCKER_HUB, Registry
from configs.site import SITE_FILE, Site
from configs.storage import SmbStorage
from infra.kubeadm.configuration import Cluster, cluster_of
from infra.registry.containerd import containerd_files
from infra.registry.login import find_login
from infra.samba.client import Mount
from infra.samba.server import Server
from infra.site.authority import Authority
from infra.site.inventory import SiteMachine, holder, machines_of, site_folder
from infra.site.passwords import find_or_make_key, find_or_make_password
from infra.site.step import Step
from infra.site.steps.addons import addon_steps
from infra.site.steps.base import base_step
from infra.site.steps.cluster_health import cluster_health_step
from infra.site.steps.control_plane import control_plane_step
from infra.site.steps.gpu import gpu_step
from infra.site.steps.health import health_step
from infra.site.steps.kubernetes import kubernetes_step
from infra.site.steps.mounts import mount_step
from infra.site.steps.node import node_step
from infra.site.steps.node_view import Described
from infra.site.steps.packages import PackageSources, package_sources, packages_step
from infra.site.steps.pod_network import named_network_step, pod_network_step
from infra.site.steps.registry import RegistryServer, registry_step
from infra.site.steps.runtime import runtime_step
from infra.site.steps.services import services_step
from infra.site.steps.snapshots import snapshot_plan, snapshots_step
from infra.site.steps.storage import storage_step
from infra.site.steps.worker import join_step
from infra.vms.plan import vm_steps

RUN_USER = "10001"
"""The account that pods run as, in the image and so on every machine's mount."""


def site_steps(site: Site, root: Path, home: Path) -> list[Step]:
    """Return the steps of a site, those of one machine in order.

    Passwords, and the CA with its certificates, are made where there are none yet: without them no machine can even be
    asked whether it has them.

    Args:
        root: the checkout. home: its state folder.

    Raises:
        UserError: the site names no machines, or a password is not where the file says.
    """
    machines = machines_of(site, home)
    made = vm_steps(site, home)
    names = {name: machine.address for name, machine in machines.items()}
    control_plane = holder(machines, "control-plane")
    if site.kubernetes is not None and control_plane is not None:
        names[site.kubernetes.endpoint] = control_plane.address
    # A VM is made before it can be asked for anything.
    ready = {step.machine: ((step.machine, step.name),) for step in made if step.name == "ready"}
    sources = package_sources(site.packages, root) if site.packages else None
    steps = made + [step for name in machines for step in _first_steps(name, names, sources, ready.get(name, ()))]
    storage, registry = holder(machines, "storage"), holder(machines, "registry")
    if isinstance(site.storage, SmbStorage) and (storage or any("worker" in item.roles for item in machines.values())):
        steps += _share_steps(site, site.storage, storage, machines, root, home)
    if registry is not None and site.registry is not None:
        server = _registry_server(site, site.registry, registry, root, home)
        steps.append(registry_step(registry.name, server, ((registry.name, "base"),)))
    steps += _node_steps(site, registry, machines, root, home)
    if site.kubernetes is not None and site.network is not None and control_plane is not None:
        wanted = cluster_of(site.kubernetes, site.network)
        # Kubernetes' own images may come from the site's registry.
        served = holder(machines, "registry") if site.kubernetes.images_in(site.registry) else None
        steps += _cluster_steps(site.kubernetes, wanted, control_plane, served, machines, root, home)
        plan = snapshot_plan(site, site.kubernetes, root, home)
        kept = ((storage.name, "storage"),) if storage is not None and plan.place is not None else ()
        steps.append(snapshots_step(control_plane.name, plan, ((control_plane.name, "control-plane"), *kept)))
    # Last, so that what a step has just started is seen as well.
    return steps + [
        health_step(name, tuple((step.machine, step.name) for step in steps if step.machine == name))
        for name in machines
    ]


def select(steps: Sequence[Step], machines: Sequence[str], names: Sequence[str]) -> list[Step]:
    """Return those steps that are asked for; empty: all.

    Raises:
        UserError: a machine or step that is not there, with those that are.
    """
    problems = []
    for kind, asked, there in (
        ("machine", machines, {step.machine for step in steps}),
        ("step", names, {step.name for step in steps}),
    ):
        for name in asked:
            if name not in there:
                problems.append(
                    Problem(f"{kind} {name!r}", f"is no {kind} of the site", f"one of {', '.join(sorted(there))}")
                )
    if problems:
        raise UserError(problems)
    return [step for step in steps if (not machines or step.machine in machines) and (not names or step.name in names)]


def _first_steps(
    machine: str, names: dict[str, str], sources: PackageSources | None, after: tuple[tuple[str, str], ...]
) -> Iterator[Step]:
    if sources is not None:
        step = packages_step(machine, sources, after)
        yield step
        after = ((machine, step.name),)
    yield base_step(machine, names, after)


def _share_steps(
    site: Site,
    share: SmbStorage,
    storage: SiteMachine | None,
    machines: dict[str, SiteMachine],
    root: Path,
    home: Path,
) -> list[Step]:
    password = find_or_make_password(share.password, f"password of {share.account} at {share.place}", root, home)
    steps = []
    before: tuple[tuple[str, str], ...] = ()
    if storage is not None:
        server = Server(
            users=(share.account,),
            networks=_networks(site),
            share=share.place.share,
            encryption="required" if share.encrypt else "if_required",
        )
        steps.append(storage_step(storage.name, server, {share.account: password}, ((storage.name, "base"),)))
        before = ((storage.name, "storage"),)
    mounted = site.mounted_share
    if mounted is None:
        return steps
    mount = Mount(
        source=f"//{share.place.host}/{share.place.share}",
        where=PurePosixPath(mounted.path),
        user=share.account,
        password=password,
        domain=share.domain or share.place.domain,
        uid=RUN_USER,
        gid=RUN_USER,
        encrypt=bool(share.encrypt),
        port=share.place.port,
    )
    for machine in machines.values():
        if "worker" in machine.roles:
            after = (*before, (machine.name, "base"))
            steps.append(mount_step(machine.name, mount, share.place.share, after))
    return steps


def _node_steps(
    site: Site, holds: SiteMachine | None, machines: dict[str, SiteMachine], root: Path, home: Path
) -> list[Step]:
    files: dict[PurePosixPath, str] = {}
    login = None
    images_here = site.kubernetes is not None and site.kubernetes.images_in(site.registry)
    if site.registry is not None and site.registry.address != DOCKER_HUB:
        if images_here:
            login = find_login(site.registry, root, home)
        files = containerd_files(site.registry, _registry_ca(site.registry, holds, root, home), login=login)
    images = site.kubernetes.images if site.kubernetes else None
    control_plane = holder(machines, "control-plane")
    steps = []
    for machine in machines.values():
        if not {"control-plane", "worker"} & set(machine.roles):
            continue
        base = ((machine.name, "base"),)
        steps.append(runtime_step(machine.name, files, base, images=images, logged_in=login is not None))
        if site.kubernetes is not None:
            # Where the control plane is still of another release, its workers get none that is newer.
            before = [control_plane.name] if control_plane and control_plane is not machine else []
            after = ((machine.name, "runtime"), *((name, "kubernetes") for name in before))
            steps.append(kubernetes_step(machine.name, site.kubernetes, after))
            if _gives_gpu(site.kubernetes, machine):
                steps.append(gpu_step(machine.name, site.kubernetes, ((machine.name, "runtime"),)))
    return steps


def _cluster_steps(
    asked: Kubernetes,
    wanted: Cluster,
    control_plane: SiteMachine,
    images_at: SiteMachine | None,
    machines: dict[str, SiteMachine],
    root: Path,
    home: Path,
) -> Iterator[Step]:
    name = control_plane.name
    # Outside the cluster: a control plane with a new disk needs it for what is restored.
    key = find_or_make_key(site_folder(home) / "encryption-key", "the key of the cluster's secrets")
    works = "worker" in control_plane.roles
    before = ((name, "kubernetes"), *(((images_at.name, "registry"),) if images_at else ()))
    yield control_plane_step(name, control_plane.address, wanted, key, before, works=works)
    if isinstance(asked.network, NamedManifest):
        yield named_network_step(name, asked.network, root, ((name, "control-plane"),))
    elif asked.network == "flannel":
        yield pod_network_step(name, wanted, ((name, "control-plane"),))
    awaits = asked.network == "none"
    nodes = [machine for machine in machines.values() if machine is control_plane or "worker" in machine.roles]
    for machine in nodes:
        joined = (machine.name, "control-plane" if machine is control_plane else "join")
        if machine is not control_plane:
            after = ((machine.name, "kubernetes"), (name, "control-plane"))
            yield join_step(machine.name, machine.address, wanted, name, after)
        yield node_step(machine, name, (joined,), gpu=_gives_gpu(asked, machine))
        others = [other.name for other in nodes if other is not machine]
        healthy = (joined, (name, "cluster-health"))
        yield services_step(machine.name, wanted.dns, healthy, others=others, awaits_network=awaits)
    authority = Authority(site_folder(home) / "authority")
    addons = list(addon_steps(asked, name, authority, root, asked.images))
    yield from addons
    done = tuple((step.machine, step.name) for step in addons)
    ends = authority.certificate.not_valid_after_utc
    # Where somebody else brings the network, nodes are not ready before that: it is told.
    before = ((name, "control-plane" if awaits else "pod-network"), *done)
    described = [Described(node.name, node.address, wanted.endpoint) for node in nodes]
    yield cluster_health_step(name, ends, before, described=described, awaits_network=awaits)


def _gives_gpu(asked: Kubernetes, machine: SiteMachine) -> bool:
    return "gpu" in asked.addons and machine.gpu and "worker" in machine.roles


def _registry_ca(registry: Registry, holds: SiteMachine | None, root: Path, home: Path) -> str | None:
    """Return the CA's text; None: the registry is one that every system trusts."""
    if holds is not None:
        return Authority(site_folder(home) / "authority").pem
    if registry.ca is None:
        return None
    path = root / registry.ca.expanduser()
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        what = f"{path} cannot be read: {error}"
        raise UserError(Problem(f"{SITE_FILE} registry.ca", what, "give the PEM file of the registry's CA")) from None


def _registry_server(site: Site, registry: Registry, machine: SiteMachine, root: Path, home: Path) -> RegistryServer:
    if registry.user is None or registry.password is None:
        raise UserError(Problem(f"{SITE_FILE} registry", "has no login", "add `user:` and `password:`"))
    authority = Authority(site_folder(home) / "authority")
    host, _, port = registry.address.partition(":")
    hosts = tuple(dict.fromkeys((host, machine.address, machine.name, "localhost", "127.0.0.1")))
    return RegistryServer(
        host=host,
        port=int(port or 443),
        user=registry.user,
        password=find_or_make_password(
            registry.password, f"password of {registry.user} at registry {registry.address}", root, home
        ),
        certificate=authority.server("registry", hosts),
        ca_pem=authority.pem,
        networks=_networks(site),
        limit_gb=registry.limit_gb,
    )


def _networks(site: Site) -> tuple[str, ...]:
    return (str(site.network.cidr),) if site.network else ()
