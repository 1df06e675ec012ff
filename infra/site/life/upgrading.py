"""Steps of an upgrade: a snapshot, the control plane by kubeadm, then node by node, each drained while it is changed.

Where a run is killed, the next one goes on: what kubeadm has ended with is in its file on the control plane, what a
node runs is what the cluster says of it, and that a node was closed for this is an annotation of the node.

Source: https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-upgrade/.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from configs.kubernetes import Kubernetes
from infra.kubeadm.configuration import told_version, with_version
from infra.kubeadm.hardening import KUBELET_CONFIG, api_server_arguments
from infra.kubeadm.snapshots import UNIT, take_snapshot
from infra.machines.commands import Command
from infra.site.facts import Facts
from infra.site.life.applying import apply_commands
from infra.site.life.draining import drain
from infra.site.life.leaving import leaving_pods, pods_fact, unanswered
from infra.site.life.nodes import CLOSED, NODES, annotate, read_nodes
from infra.site.life.upgrade_checks import TOLD
from infra.site.reading import (
    MARKERS,
    absent_fact,
    apt_install,
    file_fact,
    file_text,
    installed_packages,
    packages_fact,
    unit_changes,
    unit_fact,
)
from infra.site.step import Action, Change, Step
from infra.site.steps.applied import KUBECTL
from infra.site.steps.control_plane import KUBELET, ignored
from infra.site.steps.kubernetes import (
    HELD,
    PACKAGES,
    hold_changes,
    pin,
    release_of,
    source_changes,
    source_facts,
)
from infra.site.steps.modes import mode_fact, private_changes

After = tuple[tuple[str, str], ...]
_NODE_S = 600
READY_S = 600
# New servers may still be starting when kubelet says that it is ready: three times in a row.
_WAIT = f"""\
good=0
for i in $(seq {READY_S // 2}); do
  said=$({" ".join(KUBECTL)} get node "$1" -o "jsonpath=$3" 2>&1)
  [ "$said" = "v$2 True" ] && good=$((good + 1)) || good=0
  [ $good -lt 3 ] || exit 0
  sleep 2
done
echo "$said"
exit 1
"""
_STATE = '{.status.nodeInfo.kubeletVersion} {.status.conditions[?(@.type=="Ready")].status}'


def snapshot_step(control_plane: str, wanted: Kubernetes, run: str, where: str, after: After) -> Step:
    """Return the step that takes a snapshot of etcd while the control plane is still of the release before.

    Args:
        run: a name of this run, which takes one of its own. where: snapshots are kept.
    """
    taken = MARKERS / f"snapshot-{run}"
    tell = ("journalctl", f"_SYSTEMD_UNIT={UNIT}", "--lines=2", "--output=cat", "--no-pager")

    def changes(facts: Facts) -> Iterator[Change]:
        if told_version(file_text(TOLD, facts)) != wanted.version and not facts[absent_fact(taken)].ok:
            mark = Command(("install", "-D", "/dev/null", str(taken)))
            what = f"take a snapshot of etcd and verify it: {where}"
            yield Change(what, "the state before", (take_snapshot(), Command(tell), mark))

    return Step("snapshot", control_plane, (file_fact(TOLD), absent_fact(taken)), changes, after, repairable=False)


def control_plane_step(control_plane: str, wanted: Kubernetes, after: After) -> Step:
    """Return the step that upgrades the API server and what is beside it; kubelet has its own."""
    installed = packages_fact(PACKAGES)

    def changes(facts: Facts) -> Iterator[Change]:
        yield from _tool_changes(wanted, facts)
        text = file_text(TOLD, facts)
        told = told_version(text)
        if told and told != wanted.version:
            for name in sorted(api_server_arguments(wanted.version).keys() - api_server_arguments(told).keys()):
                what = f"give the API server --{name} once it is upgraded: `mlops site plan` says how then"
                yield Change(what, f"{told} has no such argument, and kubeadm upgrades with those of before", note=True)
        if told != wanted.version:
            # Last: until it says so, the next run has kubeadm look again.
            written = replace(TOLD, text=with_version(text, wanted.version))
            yield Change(
                f"run kubeadm upgrade apply v{wanted.version}, which renews all certificates but the CAs'",
                f"the control plane is of {told}",
                (*apply_commands(wanted.version, _ignored(wanted)), written),
            )

    facts = (installed, file_fact(TOLD), *source_facts(wanted))
    return Step("upgrade", control_plane, facts, changes, after, repairable=False)


def empty_step(control_plane: str, node: str, wanted: Kubernetes, after: After, *, force: bool, timeout_s: int) -> Step:
    """Return the step that has the pods of ``node`` end, which lose their scratch volumes, while its kubelet is older.

    Args:
        force: also those that nobody starts again.
        timeout_s: seconds after which pods that may not be ended are an error, with the reason.
    """
    options = ["--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={timeout_s}s"]
    options += ["--force"] if force else []

    def changes(facts: Facts) -> Iterator[Change]:
        found = read_nodes(facts).get(node)
        if found is None:
            yield unanswered(f"drain {node}", facts[NODES].text)
            return
        if found.version == wanted.version:
            return
        left = leaving_pods(node, facts)
        bare = [name for name, owner in left.items() if not owner]
        if bare and not force:
            remedy = "delete them, or say `--force`: they end then"
            yield Change(f"drain {node}", f"nobody would start these pods again: {', '.join(bare)}", by_hand=remedy)
            return
        begun = found.begun(wanted.version)
        if begun and found.closed and not left:
            return
        closed = CLOSED in found.upgrade if found.upgrade else found.closed
        upgrade = f"{wanted.version} {CLOSED}" if closed else wanted.version
        mark = () if begun else (Command(annotate(node, upgrade)),)
        why = f"{len(left)} pods run there: {', '.join(list(left)[:5])}" if left else "its kubelet is upgraded"
        yield Change(f"drain {node}", why, (*mark, drain(node, options, timeout_s)))

    return Step(f"drain {node}", control_plane, (NODES, pods_fact(node)), changes, after, repairable=False)


def kubelet_step(node: str, wanted: Kubernetes, after: After, *, worker: bool) -> Step:
    """Return the step that upgrades kubelet on the drained machine ``node``.

    Args:
        worker: kubeadm is there yet to be upgraded, and to write kubelet's new configuration.
    """
    installed = packages_fact(PACKAGES)

    def changes(facts: Facts) -> Iterator[Change]:
        if worker:
            yield from _tool_changes(wanted, facts)
        behind = _behind(wanted, facts, ("kubectl", "kubelet"))
        if behind:
            pins = pin(behind, wanted.version)
            # Whoever is killed after the packages are there has yet to start the new kubelet.
            mark = Command(("install", "-D", "/dev/null", str(MARKERS / KUBELET)))
            configure = Command(("kubeadm", "upgrade", "node", *_ignored(wanted)), timeout_s=_NODE_S)
            actions = (mark, *((configure,) if worker else ()), *_install(pins))
            first = "run kubeadm upgrade node and " if worker else ""
            yield Change(f"{first}install {' '.join(pins)}", _told(behind, facts), actions)
        yield from unit_changes(KUBELET, facts, changed=bool(behind))
        # kubeadm leaves it for everybody to read.
        yield from private_changes(KUBELET_CONFIG, facts)
        yield from hold_changes(facts)

    facts = (installed, HELD, unit_fact(KUBELET), mode_fact(KUBELET_CONFIG), *source_facts(wanted))
    return Step("kubelet", node, facts, changes, after, repairable=False)


def back_step(control_plane: str, node: str, wanted: Kubernetes, after: After) -> Step:
    """Return the step that waits until ``node`` is ready as the new release, and lets pods onto it as before."""
    wait = Command(("sh", "-c", _WAIT, "sh", node, wanted.version, _STATE), timeout_s=READY_S * 5)

    def changes(facts: Facts) -> Iterator[Change]:
        found = read_nodes(facts).get(node)
        if found is None:
            yield unanswered(f"have {node} ready", facts[NODES].text)
            return
        if found.version == wanted.version and not found.upgrade:
            return
        stays = CLOSED in found.upgrade or (found.closed and not found.upgrade)
        opened = () if stays else (Command((*KUBECTL, "uncordon", node)),)
        then = "it stays closed to new pods" if stays else "let pods onto it"
        why = "it was closed before" if stays else "it was drained for this"
        yield Change(
            f"wait until {node} is ready with {wanted.version}; {then}",
            why,
            (wait, *opened, Command(annotate(node, ""))),
        )

    return Step(f"ready {node}", control_plane, (NODES,), changes, after, repairable=False)


def _tool_changes(wanted: Kubernetes, facts: Facts) -> Iterator[Change]:
    """Yield what installs kubeadm of the wanted release."""
    yield from source_changes(wanted, facts)
    behind = _behind(wanted, facts, ("kubeadm",))
    if behind:
        pins = pin(behind, wanted.version)
        yield Change(f"install {' '.join(pins)}", _told(behind, facts), _install(pins))


def _install(pins: list[str]) -> tuple[Action, ...]:
    """Return what installs packages of a release, and holds them again."""
    names = (pin.partition("=")[0] for pin in pins)
    return (*apt_install(pins, held=True), Command(("apt-mark", "hold", *names)))


def _behind(wanted: Kubernetes, facts: Facts, names: Sequence[str]) -> list[str]:
    there = installed_packages(PACKAGES, facts)
    return [name for name in names if release_of(there.get(name, "")) != wanted.version]


def _told(names: Sequence[str], facts: Facts) -> str:
    there = installed_packages(PACKAGES, facts)
    return ", ".join(f"{name} is {there.get(name, 'not there')}" for name in names)


def _ignored(wanted: Kubernetes) -> tuple[str, ...]:
    return (ignored(wanted.ignore_preflight),) if wanted.ignore_preflight else ()
