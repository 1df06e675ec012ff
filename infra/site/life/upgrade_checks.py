"""Steps before an upgrade: whether the cluster can be upgraded so, and whether its machines can get what it needs.

Nothing is changed by them but what apt knows of its sources; what is in the way is told, all of it, to a person.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from configs.kubernetes import Kubernetes
from configs.site import SITE_FILE
from infra.kubeadm.configuration import told_version
from infra.kubeadm.etcd import ASK, why_not_3_6
from infra.kubeadm.releases import offered_words, parts, why_not
from infra.kubeadm.snapshots import SCRIPT
from infra.machines.commands import Command, File
from infra.site.bundle import Bundle
from infra.site.facts import Fact, Facts
from infra.site.life.nodes import NODES, Node, read_nodes
from infra.site.reading import MARKERS, absent_fact, apt_update, file_fact, file_text, installed_packages, packages_fact
from infra.site.step import Change, Step
from infra.site.steps.applied import KUBECTL
from infra.site.steps.control_plane import CONFIGURATION, WAIT
from infra.site.steps.kubernetes import PACKAGES, pin, release_of, repository_of

TOLD = File(CONFIGURATION, "", 0o600)
"""What kubeadm has ended with last, an upgrade included; only its reading is of interest."""
SERVER = Fact((*KUBECTL, "get", "--raw", "/version"))
_ETCD = Fact(("sh", "-c", ASK))
_SCRIPT = Fact(("test", "-x", str(SCRIPT)))
FREE_MB = 1500
"""What packages and images of a release take, and some: where each of these paths is."""
_PATHS = ("/usr/bin", "/var/cache/apt/archives", "/var/lib/containerd", "/etc/kubernetes")
# kubeadm copies etcd's data to /etc/kubernetes/tmp before it changes etcd.
_ROOM = f"""\
for path in {" ".join(_PATHS)}; do [ ! -e "$path" ] || df -Pm "$path" | awk -v at="$path" 'NR == 2 {{ print at, $4 }}'
done
echo etcd "$(du -sm /var/lib/etcd 2>/dev/null | cut -f1)"
"""
_SPACE = Fact(("sh", "-c", _ROOM))


def nodes_step(control_plane: str, workers: Sequence[str], wanted: Kubernetes) -> Step:
    """Return the step that says why this cluster cannot be upgraded to ``wanted``, if it cannot; it waits for it."""
    version = wanted.version

    def changes(facts: Facts) -> Iterator[Change]:
        nodes, running = read_nodes(facts), _running(facts)
        if not nodes or not running:
            # An upgrade that was killed leaves servers that are just starting.
            what = "wait for the API server (`mlops site apply --step control-plane` looks after it)"
            yield Change(what, "it does not answer", (WAIT,))
            return
        what, remedy = why_not(running, version)
        if what:
            yield _refused(f"upgrade to {version}", what, remedy)
            return
        yield from _version_changes(running, version, nodes)
        for name, node in nodes.items():
            # One that was being upgraded when the run was killed may be down: that is mended by going on.
            if not node.ready and not node.begun(version):
                why = node.message or "it has not said so"
                remedy = f"`journalctl -u kubelet` there; or `mlops site remove-worker {name}`"
                yield _refused(f"upgrade node {name}", f"it is not ready: {why}", remedy)
        yield from _strangers(nodes, (control_plane, *workers))
        if not told_version(file_text(TOLD, facts)):
            remedy = f"`mlops site plan --machine {control_plane} --step control-plane` shows what it holds"
            yield _refused("know what kubeadm was told", f"{CONFIGURATION} is not there", remedy)
        if not facts[_SCRIPT].ok:
            remedy = f"`mlops site apply --machine {control_plane} --step snapshots` first"
            yield _refused("take a snapshot before", "the machine has not what takes them", remedy)
        what, remedy = why_not_3_6(facts[_ETCD].text, version)
        if what:
            yield _refused(f"upgrade to {version}", what, remedy)

    facts = (NODES, SERVER, file_fact(TOLD), _SCRIPT, _ETCD)
    return Step("nodes", control_plane, facts, changes, repairable=False)


def offer_step(
    machine: str, wanted: Kubernetes, run: str, after: tuple[tuple[str, str], ...], bundle: Bundle | None = None
) -> Step:
    """Return the step that says whether ``machine`` can get the packages and has room for the release.

    Args:
        run: a name of this run: it has apt ask its sources anew, once.
        bundle: where the machine gets packages from nothing else: it is looked at before it is carried there.
    """
    place, key = repository_of(wanted)
    installed = packages_fact(PACKAGES)
    offered = Fact(offered_words(wanted.version, place, key))
    asked = MARKERS / f"asked-{run}"

    def changes(facts: Facts) -> Iterator[Change]:
        there = installed_packages(PACKAGES, facts)
        behind = [name for name in PACKAGES if release_of(there.get(name, "")) != wanted.version]
        if not behind:
            return
        yield from _room_changes(facts)
        pins = " ".join(pin(behind, wanted.version))
        if bundle is not None and not place and wanted.version not in bundle.kubernetes:
            held = ", ".join(bundle.kubernetes) or "no Kubernetes"
            told = f"{bundle.path.name} has {held}, and no other source is asked"
            remedy = f"make it anew, with a network: `mlops site bundle MACHINE --kubernetes {wanted.version}`"
            yield _refused(f"get {pins}", told, remedy)
            return
        if not facts[offered].ok:
            remedy = f"`curl {place}Release` there; or `packages: system`, from a mirror" if place else "apt-get update"
            yield _refused(f"get {pins}", " ".join(facts[offered].text.split()) or "apt said nothing", remedy)
            return
        rows = [[cell.strip() for cell in line.split("|")] for line in facts[offered].text.splitlines()]
        has = {row[0] for row in rows if len(row) == 3 and release_of(row[1]) == wanted.version}
        missing = pin([name for name in behind if name not in has], wanted.version)
        if missing and not place and not facts[absent_fact(asked)].ok:
            mark = Command(("install", "-D", "/dev/null", str(asked)))
            yield Change("have apt ask its sources", f"it knows no {' '.join(missing)}", (apt_update(), mark))
        elif missing:
            others = sorted({release_of(row[1]) for row in rows if len(row) == 3}, key=parts)[-3:]
            told = f"; the newest there are {', '.join(others)}" if others else ""
            remedy = (
                "name a release that there is" if place else "bring them to the machine's sources: a mirror, a bundle"
            )
            yield _refused(f"get {' '.join(missing)}", f"no source of the machine has it{told}", remedy)

    facts = (installed, offered, _SPACE, absent_fact(asked))
    return Step("offer", machine, facts, changes, after, repairable=False)


def _running(facts: Facts) -> str:
    """Return the API server's version; empty: it does not say."""
    try:
        return str(json.loads(facts[SERVER].text)["gitVersion"]).removeprefix("v") if facts[SERVER].ok else ""
    except (ValueError, LookupError, TypeError):
        return ""


def _version_changes(running: str, wanted: str, nodes: dict[str, Node]) -> Iterator[Change]:
    # Before an upgrade all are as the API server is. In the middle of one some are of the release before.
    before = sorted({node.version for node in nodes.values()} - {wanted})
    allowed = {running}
    if running == wanted and len(before) == 1 and why_not(before[0], wanted) == ("", ""):
        allowed |= {before[0]}
    wrong = [f"{name} has {node.version}" for name, node in nodes.items() if node.version not in allowed]
    if wrong:
        remedy = f"bring all to {running} first, as the API server is: `mlops site upgrade {running}`"
        yield _refused(f"upgrade to {wanted}", f"the nodes differ: {', '.join(wrong)}", remedy)


def _strangers(nodes: dict[str, Node], described: Sequence[str]) -> Iterator[Change]:
    for name in nodes:
        if name not in described:
            remedy = f"describe it in {SITE_FILE}, or delete the node"
            yield _refused(f"upgrade node {name}", f"it is none of {SITE_FILE}, and would stay behind", remedy)
    for name in described:
        if name not in nodes:
            remedy = f"`mlops site add-worker {name}` first, or take it out of the file"
            yield _refused(f"upgrade {name}", "it is no node of the cluster", remedy)


def _room_changes(facts: Facts) -> Iterator[Change]:
    rows = [line.split() for line in facts[_SPACE].text.splitlines()]
    free = {PurePosixPath(row[0]): int(row[1]) for row in rows if len(row) == 2 and row[0].startswith("/")}
    etcd = next((int(row[1]) for row in rows if len(row) == 2 and row[0] == "etcd"), 0)
    for path, left in free.items():
        needed = FREE_MB + (etcd if path.parts[1] == "etc" else 0)
        if left < needed:
            what = f"{left} MB are free where {path} is, and {needed} are wanted"
            yield _refused("have room", what, "`apt-get clean`, `journalctl --vacuum-size=200M`, or a larger disk")


def _refused(what: str, why: str, remedy: str) -> Change:
    return Change(what, why, by_hand=remedy)
