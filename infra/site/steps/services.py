"""Step ``services``: a node reaches the cluster's DNS by its service's address, as every pod there has to.

Two things have to work for that which no condition of a node tells: the rules of kube-proxy there, and the way of pods
from that machine to others. A node without them is ready, and its pods resolve no name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from ipaddress import IPv4Address

from infra.machines.commands import Command
from infra.site.facts import Fact, Facts
from infra.site.step import Change, Step
from infra.site.steps.starting import RUNS_S, just_started, runs_at

_WAIT_S = 300
"""Seconds: a node that has just joined pulls the images of kube-proxy and of the pod network first."""
# kube-proxy says so itself when it could not write its rules for a minute.
_PROXY = Fact(("curl", "--silent", "--fail", "--max-time", "5", "http://127.0.0.1:10256/healthz"))
_LOOK = "ls /etc/cni/net.d/*.conf*"
_PLUGIN = Fact(("sh", "-c", _LOOK))
_CONNECT = "exec 3<>/dev/tcp/$1/53"
# Nobody answers for an address that has no rules yet: asked again, it is answered sooner than waited for.
_CONNECTED = f"until timeout 2 bash -c '{_CONNECT}' bash $1; do sleep 0.5; done"
_HTTP_ERROR = 22
_TIMED_OUT = 124


def services_step(
    machine: str,
    dns: IPv4Address,
    after: tuple[tuple[str, str], ...],
    *,
    others: Collection[str] = (),
    awaits_network: bool,
) -> Step:
    """Return the step for a node.

    Args:
        dns: of the service. others: machines of the cluster, on which the DNS may run, and may be starting.
        awaits_network: see :func:`infra.site.steps.cluster_health.cluster_health_step`.
    """
    # Without a network there is nothing to reach, and no answer to wait for.
    ask = f"{_LOOK} >/dev/null || exit; {_CONNECT}" if awaits_network else _CONNECT
    reached = Fact(("timeout", "5", "bash", "-c", ask, "bash", str(dns)))

    def answered(facts: Facts) -> bool:
        return facts[reached].ok or (awaits_network and not facts[_PLUGIN].ok)

    def asks(facts: Facts) -> Iterator[Fact]:
        if not answered(facts) and not just_started(facts):
            yield from map(runs_at, others)

    def changes(facts: Facts) -> Iterator[Change]:
        if answered(facts):
            return
        if facts[_PROXY].status == _HTTP_ERROR:
            look = "kube-proxy here has written no rules for a minute: `kubectl -n kube-system logs ds/kube-proxy`"
        else:
            look = "does the pod network reach other machines? Flannel's is UDP, port 8472"
        starting = just_started(facts) or any(just_started(facts, runs_at(name)) for name in others)
        words = ("timeout", str(_WAIT_S), "sh", "-c", _CONNECTED, "sh", str(dns))
        wait = Command(words, accepted=frozenset({0, _TIMED_OUT}), timeout_s=_WAIT_S + 30)
        yield Change(f"have names resolved by pods here ({look})", f"{dns} does not answer", (wait,), note=starting)

    # It mends nothing, and a scheduled check has no time to wait.
    return Step("services", machine, (reached, _PROXY, _PLUGIN, RUNS_S), changes, after, repairable=False, asks=asks)
