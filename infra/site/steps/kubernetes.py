"""Step ``kubernetes``: kubelet, kubeadm and kubectl of one release, which no upgrade of the system changes.

Source: https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/install-kubeadm/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from configs.kubernetes import Kubernetes
from infra.machines.commands import Command, File
from infra.site.facts import Fact, Facts
from infra.site.reading import (
    apt_install,
    fetch_key,
    file_changes,
    file_fact,
    installed_packages,
    packages_fact,
    read_unit,
    unit_fact,
)
from infra.site.step import Change, Step
from infra.site.steps.control_plane import KUBELET, MADE, RESTORING

PACKAGES = ("kubeadm", "kubectl", "kubelet")
KEYRING = PurePosixPath("/etc/apt/keyrings/mlops-kubernetes.asc")
_SOURCES = PurePosixPath("/etc/apt/sources.list.d/mlops-kubernetes.sources")
HELD = Fact(("apt-mark", "showhold", *PACKAGES))
_KEY = Fact(("grep", "--quiet", "BEGIN PGP PUBLIC KEY BLOCK", str(KEYRING)))


def kubernetes_step(machine: str, wanted: Kubernetes, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step for ``machine``: it installs what is missing and never changes a version.

    A node's version is changed by an upgrade alone, after the control plane's: kubelet must not be the newer one.

    Of a node, its kubelet is started where it is only stopped: one that does not start at a boot was stopped for good.
    """
    installed = packages_fact(PACKAGES)

    def changes(facts: Facts) -> Iterator[Change]:
        there = installed_packages(PACKAGES, facts)
        others = {name: found for name, found in there.items() if release_of(found) != wanted.version}
        if others:
            told = ", ".join(f"{name} is {found}" for name, found in others.items())
            yield Change(
                f"have Kubernetes {wanted.version}",
                told,
                by_hand="`mlops site upgrade` brings all nodes there, the control plane first; or write the version "
                "that is there at `kubernetes.version` of the site's file",
            )
        yield from source_changes(wanted, facts)
        missing = [name for name in PACKAGES if name not in there]
        if missing:
            pinned = pin(missing, wanted.version)
            yield Change(f"install {' '.join(pinned)}", "not installed", apt_install(pinned))
        yield from hold_changes(facts)
        unit, restored = read_unit(KUBELET, facts), facts[file_fact(RESTORING)].ok
        if facts[file_fact(MADE)].ok and not restored and unit.lasts and unit.active in ("inactive", "failed"):
            yield Change(f"start {KUBELET}", f"is {unit.active}", (Command(("systemctl", "start", KUBELET)),))

    node = (unit_fact(KUBELET), file_fact(MADE), file_fact(RESTORING))
    return Step("kubernetes", machine, (installed, HELD, *source_facts(wanted), *node), changes, after)


def source_facts(wanted: Kubernetes) -> tuple[Fact, ...]:
    """Ask whether apt knows the project's own repository, where packages come from there."""
    return (_KEY, file_fact(_sources(wanted))) if wanted.packages == "community" else ()


def source_changes(wanted: Kubernetes, facts: Facts) -> Iterator[Change]:
    """Yield what has apt get packages of the wanted release's own repository."""
    if wanted.packages != "community":
        return
    if not facts[_KEY].ok:
        url = f"{repository(wanted.version)}Release.key"
        yield Change(f"write {KEYRING}", "the key of Kubernetes' packages is not there", fetch_key(KEYRING, url))
    yield from file_changes(_sources(wanted), facts)


def hold_changes(facts: Facts) -> Iterator[Change]:
    """Yield what keeps upgrades of the system from changing the packages."""
    loose = [name for name in PACKAGES if name not in facts[HELD].text.split()]
    if loose:
        hold = Command(("apt-mark", "hold", *loose))
        yield Change(f"hold {' '.join(loose)}", "the system's upgrades would change it", (hold,))


def pin(names: Iterable[str], version: str) -> list[str]:
    """Return packages of one release, as apt is asked for them."""
    return [f"{name}={version}-*" for name in names]


def release_of(version: str) -> str:
    """Return the upstream part of a package's version: of ``1:1.33.5-1.1`` ``1.33.5``."""
    return version.rpartition(":")[2].partition("-")[0]


def repository_of(wanted: Kubernetes) -> tuple[str, str]:
    """Return where apt gets the packages, and by which key; both empty: from the machine's own sources."""
    return (repository(wanted.version), str(KEYRING)) if wanted.packages == "community" else ("", "")


def repository(version: str) -> str:
    """Return the project's own repository of packages, with a slash at its end; its key is ``Release.key`` there."""
    minor = version.rpartition(".")[0]
    return f"https://pkgs.k8s.io/core:/stable:/v{minor}/deb/"


def _sources(wanted: Kubernetes) -> File:
    text = f"""\
# Rendered for this site: changes here are lost.
Types: deb
URIs: {repository(wanted.version)}
Suites: /
Signed-By: {KEYRING}
"""
    return File(_SOURCES, text)
