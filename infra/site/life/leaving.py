"""Steps by which a worker leaves its cluster: drained, its kubelet stopped, its credentials taken away, deleted.

In this order: a kubelet that runs would register its node again. What pods have written on the machine, its images and
its packages stay.
"""

from __future__ import annotations

from collections.abc import Iterator

from infra.kubeadm.joining import FOLDER
from infra.machines.commands import Command, File, Removal
from infra.site.facts import Fact, Facts
from infra.site.life.draining import drain
from infra.site.reading import file_fact, read_unit, unit_fact
from infra.site.step import Change, Step
from infra.site.steps.applied import KUBECTL
from infra.site.steps.control_plane import ADMIN, BEGUN, KUBELET, MADE

REMOVED = File(
    FOLDER / "mlops-removed", "This machine was taken out of its cluster: `mlops site add-worker` undoes it.\n"
)
DRAIN_S = 300
# A node's identity: with it whoever has the machine could be that node again.
CREDENTIALS = (FOLDER / "kubelet.conf", FOLDER / "bootstrap-kubelet.conf", FOLDER / "pki/ca.crt")
_FORGET = "rm -f /var/lib/kubelet/pki/kubelet-client-*"
# A container's first process takes the others with it; where it shares its host's, ``--all`` finds them.
_END = """\
systemctl disable --now kubelet.service
stop() {
  for task in $(ctr -n k8s.io tasks list -q); do
    ctr -n k8s.io tasks kill --signal "$1" "$task" || ctr -n k8s.io tasks kill --all --signal "$1" "$task" || true
  done
  for i in 1 2 3 4 5 6 7 8 9 10; do ctr -n k8s.io tasks list | grep -q RUNNING || exit 0; sleep 1; done
}
stop SIGTERM
stop SIGKILL
"""
_RUNNING = Fact(("sh", "-c", "ctr -n k8s.io tasks list 2>/dev/null | grep RUNNING"))
_LEFT = Fact(("sh", "-c", f"ls {' '.join(map(str, CREDENTIALS))} /var/lib/kubelet/pki/kubelet-client-* 2>/dev/null"))


def node_fact(node: str) -> Fact:
    """Ask the API server for a node: whether it takes new pods."""
    return Fact((*KUBECTL, "get", "node", node, "--output=jsonpath={.spec.unschedulable}"))


def pods_fact(node: str) -> Fact:
    """Ask for the pods that run on a node, each with what it belongs to."""
    owners = (
        '{range .items[*]}{.metadata.ownerReferences[*].kind}{" "}{.metadata.namespace}/{.metadata.name}{"\\n"}{end}'
    )
    running = f"--field-selector=spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed"
    return Fact((*KUBECTL, "get", "pods", "--all-namespaces", running, f"--output=jsonpath={owners}"))


def leaving_pods(node: str, facts: Facts) -> dict[str, str]:
    """Return the pods that a drain of ``node`` ends, with the kind of what starts them again; empty: nothing does."""
    lines = [line.rpartition(" ") for line in facts[pods_fact(node)].text.splitlines() if line.strip()]
    # Pods of a DaemonSet stay, and so do those that a file on the machine describes.
    return {name: owner for owner, _, name in lines if owner not in ("DaemonSet", "Node")}


def drain_step(
    control_plane: str,
    node: str,
    after: tuple[tuple[str, str], ...] = (),
    *,
    force: bool = False,
    timeout_s: int = DRAIN_S,
) -> Step:
    """Return the step that has all pods of ``node`` end, but those that each node has.

    Args:
        force: also those that nobody starts again, and those that lose what they wrote on the machine.
        timeout_s: seconds after which pods that may not be ended are an error, with the reason.
    """
    options = ["--ignore-daemonsets", f"--timeout={timeout_s}s"]
    options += ["--force", "--delete-emptydir-data"] if force else []

    def changes(facts: Facts) -> Iterator[Change]:
        asked = facts[node_fact(node)]
        if _is_gone(asked.text):
            return
        if not asked.ok:
            # Without an answer nothing is known, and so nothing is done.
            yield unanswered("drain it", asked.text)
            return
        left = list(leaving_pods(node, facts))
        cordoned = asked.text.strip() == "true"
        if cordoned and not left:
            return
        why = f"{len(left)} pods run there: {', '.join(left[:5])}" if left else "it takes new pods"
        yield Change(f"drain {node}", why, (drain(node, options, timeout_s),))

    return Step(f"drain {node}", control_plane, (node_fact(node), pods_fact(node)), changes, after, repairable=False)


def leave_step(node: str, after: tuple[tuple[str, str], ...] = (), *, forget: bool = True) -> Step:
    """Return the step that ends kubelet and all containers on the machine ``node``, for good.

    Args:
        forget: it also loses the credentials by which it is this node.
    """

    def changes(facts: Facts) -> Iterator[Change]:
        kubelet = read_unit(KUBELET, facts)
        # The mark first: whatever comes after it, nobody lets the machine join again by chance.
        if forget and not facts[file_fact(REMOVED)].ok:
            yield Change("mark it as taken out", "it is to stay out", (REMOVED,))
        if kubelet.active == "active" or kubelet.file == "enabled" or facts[_RUNNING].ok:
            why = "its kubelet is up" if kubelet.active == "active" else "containers run, or would after a boot"
            yield Change("end kubelet and containers", why, (Command(("sh", "-c", _END)),))
        left = facts[_LEFT].text.split()
        if forget and (left or facts[file_fact(MADE)].ok or facts[file_fact(BEGUN)].ok):
            gone = tuple(Removal(path) for path in (*CREDENTIALS, MADE.path, BEGUN.path))
            yield Change(
                "remove its credentials", "it could be that node again", (*gone, Command(("sh", "-c", _FORGET)))
            )

    facts = (unit_fact(KUBELET), _RUNNING, _LEFT, *map(file_fact, (REMOVED, MADE, BEGUN)))
    return Step("leave", node, facts, changes, after, repairable=False)


def delete_step(control_plane: str, node: str, after: tuple[tuple[str, str], ...] = ()) -> Step:
    """Return the step that has the cluster forget ``node``."""

    def changes(facts: Facts) -> Iterator[Change]:
        asked = facts[node_fact(node)]
        if asked.ok:
            command = Command((*KUBECTL[:-1], "delete", "node", node, "--timeout=60s"), timeout_s=90)
            yield Change(f"delete node {node}", "it is a node of the cluster", (command,))
        elif not _is_gone(asked.text):
            yield unanswered("delete the node", asked.text)

    return Step(f"delete {node}", control_plane, (node_fact(node),), changes, after, repairable=False)


def return_step(node: str) -> Step:
    """Return the step that lets a machine join again that was taken out."""

    def changes(facts: Facts) -> Iterator[Change]:
        if facts[file_fact(REMOVED)].ok:
            yield Change("let it join again", "it was taken out of its cluster", (Removal(REMOVED.path),))

    return Step("return", node, (file_fact(REMOVED),), changes, repairable=False)


def ready_step(control_plane: str, node: str, after: tuple[tuple[str, str], ...] = (), *, timeout_s: int = 600) -> Step:
    """Return the step that waits until ``node`` is ready for pods."""
    shown = '{range .status.conditions[?(@.type=="Ready")]}{.status} {.message}{end}'
    asked = Fact((*KUBECTL, "get", "node", node, f"--output=jsonpath={shown}"))
    words = ("wait", "--for=condition=Ready", f"node/{node}", f"--timeout={timeout_s}s")
    wait = Command(("kubectl", f"--kubeconfig={ADMIN}", *words), timeout_s=timeout_s + 30)
    uncordon = Command((*KUBECTL, "uncordon", node))

    def changes(facts: Facts) -> Iterator[Change]:
        state, _, message = facts[asked].text.strip().partition(" ")
        if not facts[asked].ok or state != "True":
            yield Change(f"wait until {node} is ready", message or "it has not said so yet", (wait,))
        if facts[node_fact(node)].text.strip() == "true":
            yield Change(f"let pods onto {node}", "it takes no new ones", (uncordon,))

    return Step(f"ready {node}", control_plane, (asked, node_fact(node)), changes, after, repairable=False)


def _is_gone(said: str) -> bool:
    return "NotFound" in said or "not found" in said


def unanswered(what: str, said: str) -> Change:
    """Return that something cannot be done, since the API server says nothing about the node."""
    look = f"look at the control plane: journalctl -u {KUBELET}"
    return Change(what, f"the API server does not say whether there is such a node: {said.strip()}", by_hand=look)
