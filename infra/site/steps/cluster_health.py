"""Step ``cluster-health``: nodes that are lost, what every cluster needs and does not run, certificates that end soon.

It mends nothing: it waits for what may be starting, and tells the rest. A scheduled check has no time to wait: what is
starting is no fault to it. Why a node is not ready, its own machine is asked as well (``node_view``).
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from infra.addons.dashboard import NAMESPACE as DASHBOARD
from infra.kubeadm.flannel import NAMESPACE as FLANNEL
from infra.machines.commands import Command
from infra.site.facts import Fact, Facts
from infra.site.step import Change, Step
from infra.site.steps.applied import KUBECTL
from infra.site.steps.node_view import CLOCK, KUBELET_LOG, Described, Verdict, judge, own_facts
from infra.site.steps.starting import RUNS_S, STARTS_S, just_started

NAMESPACES = ("kube-system", FLANNEL, DASHBOARD)
"""Of what the cluster itself needs; the platform's has a status of its own."""
SOON_DAYS = 30
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
_READY = """\
for i in $(seq 90); do "$@" get --raw /readyz >/dev/null 2>&1 && exit; sleep 2; done
exit 1
"""


def cluster_health_step(
    machine: str,
    ca_ends: datetime.datetime,
    after: tuple[tuple[str, str], ...],
    *,
    described: Collection[Described] = (),
    awaits_network: bool = False,
) -> Step:
    """Return the step, for which the control plane ``machine`` is asked.

    Args:
        ca_ends: when the certificate of the site's own CA ends.
        described: the site's nodes; of others nobody can be asked why they are not ready.
        awaits_network: the network of pods is brought by somebody else, who may not have done it yet.
    """
    ours = {node.name: node for node in described}

    def apart(node: _Node) -> bool:
        return awaits_network and node.has_no_network

    def asks(facts: Facts) -> Iterator[Fact]:
        for node in _read_nodes(facts):
            if node.name in ours and not node.ready and not apart(node):
                yield from own_facts(node.name)

    def changes(facts: Facts) -> Iterator[Change]:
        now = datetime.datetime.fromtimestamp(int(facts[_NOW].text or 0), datetime.UTC)
        started = just_started(facts)
        nodes = _read_nodes(facts)
        waiting = [node for node in nodes if apart(node)]
        new = [node.name for node in nodes if started or (now - node.since).total_seconds() < STARTS_S]
        starting = bool(new)
        if not facts[_NODES].ok:
            # Before its last words kubectl says each try.
            yield _silent(facts[_NODES].text.strip().rpartition("\n")[2], starting=started)
        if waiting:
            yield _without_network(waiting)
        for node in nodes:
            if not node.ready and not apart(node):
                stranger = Verdict(node.lost, "" if node.name in new else f"is {node.name} on? {KUBELET_LOG} there")
                mine = ours.get(node.name)
                found = judge(mine, node.lost, now, facts, new=node.name in new) if mine else stranger
                starting = starting or not found.remedy
                yield _unready_change(node, found)
            yield from _pressure_changes(node)
        for change in _workload_changes(facts):
            if waiting:
                yield replace(change, why=f"{change.why}: pods have no network yet", actions=(), note=True)
            else:
                yield replace(change, note=starting)
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
    return Step("cluster-health", machine, facts, changes, after, repairable=False, asks=asks)


@dataclass(frozen=True)
class _Node:
    """A node as the cluster knows it; ``since`` it is ready or not, of which its kubelet has last said ``told``."""

    name: str
    states: dict[str, str]
    since: datetime.datetime
    told: str

    @property
    def ready(self) -> bool:
        return self.states.get("Ready") == "True"

    @property
    def lost(self) -> str:
        """Return what is the matter, as far as the cluster knows."""
        if self.states.get("Ready") == "False":
            return f"{self.name} is not ready: {self.told}"
        # Of a control plane that has just started, the time is its own.
        return f"{self.name} has been silent since {self.since:{CLOCK}} or longer"

    @property
    def has_no_network(self) -> bool:
        return self.states.get("Ready") == "False" and "NetworkPluginNotReady" in self.told


def _read_nodes(facts: Facts) -> list[_Node]:
    return [_node(line) for line in facts[_NODES].text.splitlines()] if facts[_NODES].ok else []


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


def _unready_change(node: _Node, found: Verdict) -> Change:
    wait = (*KUBECTL[:-1], "wait", f"node/{node.name}", "--for=condition=Ready", f"--timeout={_WAIT_S}s")
    waits = (Command(wait, accepted=frozenset({0, 1}), timeout_s=_WAIT_S + 30),)
    if found.remedy:
        return Change(f"have node {node.name} back", found.why, waits, by_hand=found.remedy)
    return Change(f"wait for node {node.name}", found.why, waits, note=True)


def _pressure_changes(node: _Node) -> Iterator[Change]:
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
