"""Step ``kubernetes``: kubelet, kubeadm and kubectl of one release, which no upgrade of the system changes.

Source: https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/install-kubeadm/.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from configs.kubernetes import Kubernetes
from infra.machines.commands import Command, File
from infra.site.facts import Fact, Facts
from infra.site.reading import apt_install, fetch_key, file_changes, file_fact, installed_packages, packages_fact
from infra.site.step import Change, Step

PACKAGES = ("kubeadm", "kubectl", "kubelet")
KEYRING = PurePosixPath("/etc/apt/keyrings/mlops-kubernetes.asc")
_SOURCES = PurePosixPath("/etc/apt/sources.list.d/mlops-kubernetes.sources")
_HELD = Fact(("apt-mark", "showhold", *PACKAGES))


def kubernetes_step(machine: str, wanted: Kubernetes, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step for ``machine``: it installs what is missing and never changes a version.

    A node's version is changed by an upgrade alone, after the control plane's: kubelet must not be the newer one.
    """
    place = repository(wanted.version)
    sources = File(_SOURCES, _sources_text(place))
    community = wanted.packages == "community"
    key = Fact(("grep", "--quiet", "BEGIN PGP PUBLIC KEY BLOCK", str(KEYRING)))
    installed = packages_fact(PACKAGES)

    def changes(facts: Facts) -> Iterator[Change]:
        there = installed_packages(PACKAGES, facts)
        others = {name: found for name, found in there.items() if _release(found) != wanted.version}
        if others:
            told = ", ".join(f"{name} is {found}" for name, found in others.items())
            yield Change(
                f"have Kubernetes {wanted.version}",
                told,
                by_hand="upgrade by https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-upgrade/, the "
                "control plane first, or write the version that is there at `kubernetes.version` of the site's file",
            )
        if community and not facts[key].ok:
            yield Change(
                f"write {KEYRING}",
                "the key of Kubernetes' packages is not there",
                fetch_key(KEYRING, f"{place}Release.key"),
            )
        if community:
            yield from file_changes(sources, facts)
        missing = [name for name in PACKAGES if name not in there]
        if missing:
            pinned = [f"{name}={wanted.version}-*" for name in missing]
            yield Change(f"install {' '.join(pinned)}", "not installed", apt_install(pinned))
        loose = [name for name in PACKAGES if name not in facts[_HELD].text.split()]
        if loose:
            hold = Command(("apt-mark", "hold", *loose))
            yield Change(f"hold {' '.join(loose)}", "the system's upgrades would change it", (hold,))

    facts = (installed, _HELD, *((key, file_fact(sources)) if community else ()))
    return Step("kubernetes", machine, facts, changes, after)


def _release(version: str) -> str:
    """Return the upstream part of a package's version: of ``1:1.33.5-1.1`` ``1.33.5``."""
    return version.rpartition(":")[2].partition("-")[0]


def repository(version: str) -> str:
    """Return the project's own repository of packages, with a slash at its end; its key is ``Release.key`` there."""
    minor = version.rpartition(".")[0]
    return f"https://pkgs.k8s.io/core:/stable:/v{minor}/deb/"


def _sources_text(place: str) -> str:
    return f"""\
# Rendered for this site: changes here are lost.
Types: deb
URIs: {place}
Suites: /
Signed-By: {KEYRING}
"""
