"""Step ``control-plane``: ``kubeadm init``, once. Never a reset: half done it is gone on with, down it is started.

Two markers tell apart what looks alike: a control plane that was never begun, one whose ``kubeadm init`` was killed,
and one that is whole and only does not answer now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from infra.kubeadm.configuration import (
    AUDIT_POLICY,
    ENCRYPTION,
    Cluster,
    init_configuration,
    told_version,
    with_version,
)
from infra.kubeadm.hardening import KUBELET_CONFIG, api_server_files
from infra.kubeadm.joining import FOLDER
from infra.kubeadm.policy import audit_policy, encryption_configuration
from infra.machines.commands import Command, File
from infra.site.facts import Fact, Facts
from infra.site.reading import file_changes, file_fact, file_text, unit_changes, unit_fact
from infra.site.step import Change, Step
from infra.site.steps.modes import make_private, mode_fact, private_changes
from infra.site.steps.moved import moved_control_plane, moved_from

CONFIGURATION = FOLDER / "mlops-kubeadm.yaml"
BEGUN = File(FOLDER / "mlops-begun", "kubeadm was started here by the site, on a machine without Kubernetes.\n")
MADE = File(FOLDER / "mlops-made", "kubeadm has ended here. Without this file it would be started again.\n")
RESTORING = File(FOLDER / "mlops-restoring", "A backup is being restored here; until it is, nothing else begins.\n")
KUBELET = "kubelet.service"
ENABLE = Command(("systemctl", "--no-reload", "enable", KUBELET))
"""Before kubeadm, which has systemd read its units anew and starts it."""
ADMIN = FOLDER / "admin.conf"
# What an init or join that was killed has left, and would refuse to go on with.
LEFT_BY_INIT = (
    "DirAvailable--var-lib-etcd",
    *(
        f"FileAvailable--etc-kubernetes-manifests-{name}.yaml"
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
    ),
    *(f"Port-{port}" for port in (6443, 10250, 10257, 10259, 2379, 2380)),
)
_INIT_S = 1200
_WAIT_S = 180
_KUBECTL = ("kubectl", f"--kubeconfig={ADMIN}", "--request-timeout=10s")
READY = Fact((*_KUBECTL, "get", "--raw", "/readyz"))
_LOOP = f"for i in $(seq {_WAIT_S}); do {' '.join(READY.argv)} && exit; sleep 1; done; exit 1"
WAIT = Command(("sh", "-c", _LOOP), timeout_s=_WAIT_S * 5)
"""Ends once the API server answers, and with an error when it still does not after some minutes."""
_THERE = Fact(("sh", "-c", f"ls {ADMIN} {FOLDER}/kubelet.conf 2>/dev/null | grep ."))


def control_plane_step(
    machine: str,
    address: str,
    cluster: Cluster,
    encryption_key: str,
    after: tuple[tuple[str, str], ...],
    *,
    works: bool = False,
) -> Step:
    """Return the step that makes ``machine`` the control plane; arguments as of :func:`control_plane_files`."""
    files = control_plane_files(machine, address, cluster, encryption_key, works=works)
    configuration = next(file for file in files if file.path == CONFIGURATION)

    def changes(facts: Facts) -> Iterator[Change]:
        if facts[file_fact(RESTORING)].ok:
            yield Change(
                "be the control plane",
                "a backup was being restored here, and that was cut off",
                by_hand="run `mlops site restore` again with the same file: it goes on where it was",
            )
            return
        differing = [change for file in files for change in file_changes(file, facts)]
        if not facts[file_fact(MADE)].ok:
            if facts[_THERE].ok and not facts[file_fact(BEGUN)].ok:
                yield foreign_node(facts[_THERE].text)
                return
            yield from differing
            yield _init(begun=facts[file_fact(BEGUN)].ok)
            return
        yield from private_changes(KUBELET_CONFIG, facts)
        old = moved_from(configuration, file_text(configuration, facts), address)
        if old is not None:
            yield moved_control_plane(configuration, old, address, READY, _WAIT_S)
            return
        started = unit_changes(KUBELET, facts)
        yield from started
        if not started and not facts[READY].ok:
            yield Change("wait for the API server", " ".join(facts[READY].text.split()), (WAIT,))
        # Its own files are read at init only: what has changed in them since is not in the cluster.
        told = file_text(configuration, facts)
        for change in differing if facts[READY].ok and not started else ():
            yield replace(change, actions=(), by_hand=_remedy(change, told, configuration.text))

    facts = (
        *map(file_fact, (*files, BEGUN, MADE, RESTORING)),
        _THERE,
        mode_fact(KUBELET_CONFIG),
        unit_fact(KUBELET),
        READY,
    )
    # Not by a scheduled check: a machine that has lost its disk would become another, empty cluster.
    return Step("control-plane", machine, facts, changes, after, repairable=False)


def control_plane_files(
    machine: str, address: str, cluster: Cluster, encryption_key: str, *, works: bool = False
) -> tuple[File, ...]:
    """Return what ``kubeadm init`` reads on the control plane ``machine``.

    Args:
        encryption_key: of :func:`infra.kubeadm.policy.encryption_configuration`; without it the cluster's secrets are
            lost, so it is kept with the site.
        works: it is a worker as well.
    """
    return (
        File(AUDIT_POLICY, audit_policy(), 0o600),
        File(ENCRYPTION, encryption_configuration(encryption_key), 0o600, secret=True),
        *(File(path, text, 0o600) for path, text in api_server_files(cluster.version).items()),
        File(CONFIGURATION, init_configuration(cluster, machine, address, works=works), 0o600),
    )


def _remedy(change: Change, told: str, wanted: str) -> str:
    """Return what a person does about a file that the cluster was not made by, ``told`` and ``wanted`` kubeadm's."""
    path, version = change.what.split()[1], told_version(wanted)
    if path == str(CONFIGURATION) and with_version(told, version) == wanted:
        return f"the cluster is of {told_version(told)}: `mlops site upgrade` makes it one of {version}"
    return (
        "the cluster was made by another configuration: change it by https://kubernetes.io/docs/tasks/"
        f"administer-cluster/kubeadm/kubeadm-reconfigure/, then write it to {path}"
    )


def foreign_node(found: str) -> Change:
    """Return that a machine belongs to a cluster which this site has not made."""
    return Change(
        "make it a node of this site",
        f"it is one already, of a cluster that this site has not made ({' '.join(found.split())})",
        by_hand=f"if it is the site's own, say so: `touch {MADE.path}`; else take it out of that cluster first",
    )


def ignored(errors: tuple[str, ...]) -> str:
    """Return the option by which kubeadm goes on with what it has left itself."""
    return f"--ignore-preflight-errors={','.join(errors)}"


def _init(*, begun: bool) -> Change:
    config = f"--config={CONFIGURATION}"
    # The strict look comes before the marker: a disk with the data of an older cluster is never taken for our own.
    first = (Command(("kubeadm", "init", "phase", "preflight", config), timeout_s=_INIT_S), BEGUN)
    init = Command(("kubeadm", "init", config, "--skip-token-print", ignored(LEFT_BY_INIT)), timeout_s=_INIT_S)
    why = "kubeadm init was cut off" if begun else "there is no cluster yet"
    return Change(
        "run kubeadm init", why, (*(() if begun else first), ENABLE, init, *make_private(KUBELET_CONFIG), MADE)
    )
