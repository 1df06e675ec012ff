"""Step ``cluster-health``: nodes that are lost, what every cluster needs and does not run, certificates that end soon.

It mends nothing: it waits for what may be starting, and tells the rest. A scheduled check has no time to wait: what is
starting is no fault to it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, replace

from infra.addons.dashboard import NAMESPACE as DASHBOARD
from infra.kubeadm.flannel import NAMESPACE as FLANNEL
from infra.machines.commands import Command
from infra.site.facts import Fact, Facts
from infra.site.step import Change, Step
from infra.site.steps.applied import KUBECTL

NAMESPACES = ("kube-system", FLANNEL, DASHBOARD)
"""Of what the cluster itself needs; the platform's has a status of its own."""
SOON_DAYS = 30
STARTS_S = 300
"""Seconds after a machine's start, or after its node was lost or came back, in which what is missing is starting."""
_WAIT_S = 180
# Of each node its conditions, since when it is ready or not, and what its kubelet says of that.
_NODES = Fact(
    (
        *(*KUBECTL, "get", "nodes", "-o"),
        'jsonpath={range .items[*]}{.metadata.name}{"\\t"}'
        '{range .status.conditions[*]}{.type}={.status} {end}{"\\t"}'
        '{range .status.conditions[?(@.type=="Ready")]}{.lastTransitionTime}{"\\t"}{.message}{end}{"\\n"}{end}',
    )
)
_WORKLOADS = Fact(
    (
        *(*KUBECTL, "get", "deployments,daemonsets", "--all-namespaces", "-o"),
        'jsonpath={range .items[*]}{.metadata.namespace}{"\\t"}{.kind}/{.metadata.name}{"\\t"}'
        '{.spec.replicas}{.status.desiredNumberScheduled}{"\\t"}{.status.readyReplicas}{.status.numberReady}{"\\n"}{end}',
    )
)
# Of each certificate that has ended or ends soon: its file, the seconds that it does not last, and its end.
_CERTIFICATES = Fact(
    (
        "sh",
        "-c",
        'cd /etc/kubernetes || exit; look() { pem=$(cat); [ -n "$pem" ] || return 0; for seconds in 0 $1; do'
        " printf '%s\\n' \"$pem\" | openssl x509 -noout -checkend $seconds >/dev/null 2>&1 ||"
        " { printf '%s\\t%s\\t%s\\n' \"$2\" $seconds"
        ' "$(printf \'%s\\n\' "$pem" | openssl x509 -noout -enddate 2>/dev/null)"; return; };'
        " done; };"
        ' for at in pki/*.crt pki/etcd/*.crt; do [ ! -e "$at" ] || look "$1" "$at" <"$at"; done;'
        ' for at in admin super-admin controller-manager scheduler; do [ ! -e "$at.conf" ] ||'
        ' sed -n \'s/^ *client-certificate-data: *//p\' "$at.conf" | base64 -d | look "$1" "$at.conf"; done',
        "sh",
        str(SOON_DAYS * 86400),
    )
)
_NOW = Fact(("date", "--utc", "+%s"))
# Of its first process: in a container, the kernel has run for longer than the machine.
RUNS_S = Fact(("ps", "-o", "etimes=", "-p", "1"))
_READY = """\
for i in $(seq 90); do "$@" get --raw /readyz >/dev/null 2>&1 && exit; sleep 2; done
exit 1
"""


def cluster_health_step(
    machine: str, ca_ends: datetime.datetime, after: tuple[tuple[str, str], ...], *, awaits_network: bool = False
) -> Step:
    """Return the step, for which the control plane ``machine`` is asked.

    Args:
        ca_ends: when the certificate of the site's own CA ends.
        awaits_network: the network of pods is brought by somebody else, who may not have done it yet.
    """

    def changes(facts: Facts) -> Iterator[Change]:
        now = datetime.datetime.fromtimestamp(int(facts[_NOW].text or 0), datetime.UTC)
        started = facts[RUNS_S].ok and int(facts[RUNS_S].text) < STARTS_S
        nodes = [_node(line) for line in facts[_NODES].text.splitlines()] if facts[_NODES].ok else []
        apart = [node for node in nodes if awaits_network and node.has_no_network]
        starting = [node for node in nodes if started or (now - node.since).total_seconds() < STARTS_S]
        if not facts[_NODES].ok:
            yield _silent(" ".join(facts[_NODES].text.split()), starting=started)
        if apart:
            yield _without_network(apart)
        for node in nodes:
            if node not in apart:
                yield from _node_changes(node, starting=node in starting)
        for change in _workload_changes(facts):
            if apart:
                yield replace(change, why=f"{change.why}: pods have no network yet", actions=(), note=True)
            else:
                yield replace(change, note=bool(starting))
        yield from _certificate_changes(facts)
        if facts[_NOW].ok and ca_ends - now < datetime.timedelta(days=SOON_DAYS):
            yield Change(
                "make the site's CA anew",
                f"its certificate ends at {ca_ends:%Y-%m-%d %H:%M} UTC",
                by_hand="move .mlops/site/authority away, and run `mlops site apply`: every machine gets the new one; "
                "browsers and container tools of people have to be told of it",
            )

    # Not by a scheduled check, which has no time to wait.
    facts = (_NODES, _WORKLOADS, _CERTIFICATES, _NOW, RUNS_S)
    return Step("cluster-health", machine, facts, changes, after, repairable=False)


@dataclass(frozen=True)
class _Node:
    """A node as the cluster knows it; ``since`` it is ready or not, of which its kubelet has last said ``told``."""

    name: str
    states: dict[str, str]
    since: datetime.datetime
    told: str

    @property
    def has_no_network(self) -> bool:
        return self.states.get("Ready") == "False" and "NetworkPluginNotReady" in self.told


def _node(line: str) -> _Node:
    name, conditions, since, told = f"{line}\t\t\t".split("\t")[:4]
    states = dict(item.split("=", 1) for item in conditions.split())
    long_ago = datetime.datetime.fromtimestamp(0, datetime.UTC)
    return _Node(name, states, datetime.datetime.fromisoformat(since) if since else long_ago, told)


def _silent(told: str, *, starting: bool) -> Change:
    what, why = "ask the cluster", f"it does not answer: {told}"
    if starting:
        wait = Command(("sh", "-c", _READY, "sh", *KUBECTL), accepted=frozenset({0, 1}), timeout_s=_WAIT_S * 5)
        return Change(what, f"its machine has just started, and {why}", (wait,), note=True)
    return Change(what, why, by_hand="mlops site apply --step control-plane")


def _without_network(nodes: list[_Node]) -> Change:
    names = ", ".join(node.name for node in nodes)
    what = "bring the network of pods, which this site leaves to you (kubernetes.network: none)"
    return Change(what, f"without it no pod starts but the control plane's own, and not ready are {names}", note=True)


def _node_changes(node: _Node, *, starting: bool) -> Iterator[Change]:
    if node.states.get("Ready") != "True":
        lost = "has not said a word for a minute" if node.states.get("Ready") == "Unknown" else "is not ready"
        wait = (*KUBECTL[:-1], "wait", f"node/{node.name}", "--for=condition=Ready", f"--timeout={_WAIT_S}s")
        waits = (Command(wait, accepted=frozenset({0, 1}), timeout_s=_WAIT_S + 30),)
        if starting:
            yield Change(f"wait for node {node.name}", f"it {lost}, and may be starting", waits, note=True)
        else:
            yield Change(f"have node {node.name} back (is it on? `journalctl -u kubelet` there)", f"it {lost}", waits)
    for kind, what in (("DiskPressure", "disk"), ("MemoryPressure", "memory"), ("PIDPressure", "processes")):
        if node.states.get(kind) == "True":
            remedy = f"its pods are being ended: see `kubectl describe node {node.name}`, and free some or give it more"
            yield Change(f"give node {node.name} more {what}", f"it is short of {what}", by_hand=remedy)


def _workload_changes(facts: Facts) -> Iterator[Change]:
    for line in facts[_WORKLOADS].text.splitlines() if facts[_WORKLOADS].ok else ():
        space, name, wanted, ready = line.split("\t")
        if space not in NAMESPACES or int(ready or 0) >= int(wanted or 0):
            continue
        kind, _, rest = name.partition("/")
        item = f"{kind.lower()}/{rest}"
        wait = (*KUBECTL[:-1], "rollout", "status", "-n", space, item, f"--timeout={_WAIT_S}s")
        yield Change(
            f"have {item} of {space} run (`kubectl describe pods -n {space}` says why not)",
            f"{ready or 0} of {wanted} of its pods are ready",
            (Command(wait, accepted=frozenset({0, 1}), timeout_s=_WAIT_S + 30),),
        )


def _certificate_changes(facts: Facts) -> Iterator[Change]:
    for line in facts[_CERTIFICATES].text.splitlines() if facts[_CERTIFICATES].ok else ():
        path, seconds, end = line.split("\t")
        ended = "has ended" if seconds == "0" else f"ends within {SOON_DAYS} days"
        remedy = (
            "`kubeadm certs renew all`, then restart the control plane's pods (move its files out of "
            "/etc/kubernetes/manifests for 20 s), and `mlops site apply`; an upgrade renews them as well"
        )
        if path.rpartition("/")[2].endswith("ca.crt"):
            remedy = "follow https://kubernetes.io/docs/tasks/tls/manual-rotation-of-ca-certificates/"
        told = f"its certificate {ended}: {end.removeprefix('notAfter=')}" if end else "it holds no certificate"
        yield Change(f"renew /etc/kubernetes/{path}", told, by_hand=remedy)
