"""Step ``cluster-health``: nodes that are lost, what every cluster needs and does not run, certificates that end soon.

It mends nothing: it waits for what may be starting, and tells the rest.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from infra.addons.dashboard import NAMESPACE as DASHBOARD
from infra.kubeadm.flannel import NAMESPACE as FLANNEL
from infra.machines.commands import Command
from infra.site.facts import Fact, Facts
from infra.site.step import Change, Step
from infra.site.steps.applied import KUBECTL

NAMESPACES = ("kube-system", FLANNEL, DASHBOARD)
"""Of what the cluster itself needs; the platform's has a status of its own."""
SOON_DAYS = 30
_WAIT_S = 180
_NODES = Fact(
    (
        *(*KUBECTL, "get", "nodes", "-o"),
        'jsonpath={range .items[*]}{.metadata.name}{"\\t"}'
        '{range .status.conditions[*]}{.type}={.status} {end}{"\\n"}{end}',
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


def cluster_health_step(machine: str, ca_ends: datetime.datetime, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step, for which the control plane ``machine`` is asked.

    Args:
        ca_ends: when the certificate of the site's own CA ends.
    """

    def changes(facts: Facts) -> Iterator[Change]:
        yield from _node_changes(facts)
        yield from _workload_changes(facts)
        yield from _certificate_changes(facts)
        now = datetime.datetime.fromtimestamp(int(facts[_NOW].text or 0), datetime.UTC)
        if facts[_NOW].ok and ca_ends - now < datetime.timedelta(days=SOON_DAYS):
            yield Change(
                "make the site's CA anew",
                f"its certificate ends at {ca_ends:%Y-%m-%d %H:%M} UTC",
                by_hand="move .mlops/site/authority away, and run `mlops site apply`: every machine gets the new one; "
                "browsers and container tools of people have to be told of it",
            )

    # Not by a scheduled check, which has no time to wait.
    return Step("cluster-health", machine, (_NODES, _WORKLOADS, _CERTIFICATES, _NOW), changes, after, repairable=False)


def _node_changes(facts: Facts) -> Iterator[Change]:
    if not facts[_NODES].ok:
        told = " ".join(facts[_NODES].text.split())
        yield Change("ask the cluster", f"it does not answer: {told}", by_hand="mlops site apply --step control-plane")
        return
    for line in facts[_NODES].text.splitlines():
        name, _, conditions = line.partition("\t")
        states = dict(item.split("=", 1) for item in conditions.split())
        if states.get("Ready") != "True":
            lost = "has not said a word for a minute" if states.get("Ready") == "Unknown" else "is not ready"
            wait = (*KUBECTL[:-1], "wait", f"node/{name}", "--for=condition=Ready", f"--timeout={_WAIT_S}s")
            yield Change(
                f"have node {name} back (is it on? `journalctl -u kubelet` there)",
                f"it {lost}",
                (Command(wait, accepted=frozenset({0, 1}), timeout_s=_WAIT_S + 30),),
            )
        for kind, what in (("DiskPressure", "disk"), ("MemoryPressure", "memory"), ("PIDPressure", "processes")):
            if states.get(kind) == "True":
                remedy = f"its pods are being ended: see `kubectl describe node {name}`, and free some or give it more"
                yield Change(f"give node {name} more {what}", f"it is short of {what}", by_hand=remedy)


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
